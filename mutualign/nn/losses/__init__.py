"""Losses as pure functions: tensors in, scalar out. They can be used in any training loop."""

from mutualign.nn.losses.adversarial import divergence, virtual_adversarial_loss
from mutualign.nn.losses.discrepancy import (
    batch_spectral_penalty,
    classifier_discrepancy,
    coral,
    gaussian_kernels,
    joint_mmd,
    margin_disparity,
    mmd,
    nuclear_wasserstein,
    stepwise_feature_norm,
)
from mutualign.nn.losses.information import Pairs, all_pairs_mutual_information, jsd_mutual_information, sample_pairs
from mutualign.nn.losses.predictions import (
    batch_nuclear_norm,
    class_confusion,
    entropy,
    entropy_minimisation,
    information_maximisation,
)
from mutualign.nn.losses.transport import transport_cost

__all__ = [
    "Pairs",
    "all_pairs_mutual_information",
    "batch_nuclear_norm",
    "batch_spectral_penalty",
    "class_confusion",
    "classifier_discrepancy",
    "coral",
    "divergence",
    "entropy",
    "entropy_minimisation",
    "gaussian_kernels",
    "information_maximisation",
    "joint_mmd",
    "jsd_mutual_information",
    "margin_disparity",
    "mmd",
    "nuclear_wasserstein",
    "sample_pairs",
    "stepwise_feature_norm",
    "transport_cost",
    "virtual_adversarial_loss",
]
