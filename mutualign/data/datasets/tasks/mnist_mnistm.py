"""MNIST -> MNIST-M in the variants frozen, resampled and imbalanced, and MNIST-M -> MNIST."""

from mutualign.data.datasets.published import FROZEN_FILES, RESAMPLED_FILES
from mutualign.data.datasets.registry import register_lazily

register_lazily(
    "mnist-mnistm",
    "MNIST -> MNIST-M, variant frozen: one background per image, train and test photos disjoint",
    "mnist_mnistm:load_frozen",
    FROZEN_FILES,
)
register_lazily(
    "mnist-mnistm-resampled",
    "MNIST -> MNIST-M, variant resampled: a new background at every access, as in the published code",
    "mnist_mnistm:load_resampled",
    RESAMPLED_FILES,
)
register_lazily(
    "mnist-mnistm-imbalanced",
    "MNIST -> MNIST-M (frozen) with classes 5 to 9 a fifth as frequent",
    "mnist_mnistm:load_imbalanced",
    FROZEN_FILES,
)
register_lazily(
    "mnistm-mnist",
    "MNIST-M (frozen) -> MNIST: the reverse, where source only is already good",
    "mnist_mnistm:load_reverse",
    FROZEN_FILES,
)
