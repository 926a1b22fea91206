"""MNIST -> USPS and back: two collections of handwritten digits."""

from mutualign.data.datasets.published import MNIST_FILES, USPS_FILES
from mutualign.data.datasets.registry import register_lazily

BOTH = (*MNIST_FILES, *USPS_FILES)
register_lazily(
    "mnist-usps", "MNIST -> USPS: 7,291 and 2,007 digits of envelopes, enlarged to 28x28", "usps:load_mnist_usps", BOTH
)
register_lazily("usps-mnist", "USPS -> MNIST: the reverse, from few digits to many", "usps:load_usps_mnist", BOTH)
