"""mutualign: unsupervised domain adaptation of image classifiers by mutual information."""

from typing import TYPE_CHECKING, Any

from mutualign.nn.layers import GradientReversal, reverse_gradient
from mutualign.nn.losses import Pairs, all_pairs_mutual_information, jsd_mutual_information, sample_pairs

if TYPE_CHECKING:
    from mutualign.estimator import DomainAdapter

__version__ = "0.1.0"
__all__ = [
    "DomainAdapter",
    "GradientReversal",
    "Pairs",
    "all_pairs_mutual_information",
    "jsd_mutual_information",
    "reverse_gradient",
    "sample_pairs",
]


def __getattr__(name: str) -> Any:
    """DomainAdapter, imported when it is asked for: it brings scikit-learn and the training with it."""
    if name == "DomainAdapter":
        from mutualign.estimator import DomainAdapter

        return DomainAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
