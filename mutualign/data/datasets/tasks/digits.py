"""`digits`: a small model of MNIST -> MNIST-M; nothing is downloaded."""

from mutualign.data.datasets.registry import register_lazily

register_lazily("digits", "small digits onto photo patches; embedded, needs no files", "digits:load_task")
