"""Losses as pure functions: tensors in, scalar out."""

from mutualign.nn.losses.information import Pairs, all_pairs_mutual_information, jsd_mutual_information, sample_pairs

__all__ = ["Pairs", "all_pairs_mutual_information", "jsd_mutual_information", "sample_pairs"]
