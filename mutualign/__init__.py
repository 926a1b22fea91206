"""mutualign: unsupervised domain adaptation of image classifiers by mutual information."""

from mutualign.nn.layers import GradientReversal, reverse_gradient
from mutualign.nn.losses import Pairs, all_pairs_mutual_information, jsd_mutual_information, sample_pairs

__version__ = "0.1.0"
__all__ = [
    "GradientReversal",
    "Pairs",
    "all_pairs_mutual_information",
    "jsd_mutual_information",
    "reverse_gradient",
    "sample_pairs",
]
