"""MNIST -> MNIST-M, variant original: the 32x32 release of its authors."""

from mutualign.data.datasets.published import MNIST_FILES
from mutualign.data.datasets.registry import register_lazily

register_lazily(
    "mnist-mnistm-original",
    "MNIST -> MNIST-M, variant original: the 32x32 release (mnist_m.tar.gz or mnist_m/, which has no mirror)",
    "mnistm_original:load_task",
    MNIST_FILES,
    unpublished=("mnist_m", "mnist_m.tar.gz"),
)
