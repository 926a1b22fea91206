"""MNIST -> MNIST eroded, blurred and inverted."""

from mutualign.data.datasets.published import MNIST_FILES
from mutualign.data.datasets.registry import register_lazily

register_lazily("mnist-worn", "MNIST -> MNIST eroded, blurred and inverted", "mnist_worn:load_worn", MNIST_FILES)
