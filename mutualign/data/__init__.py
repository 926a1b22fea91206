"""Data: images as tensors, the files they come from, and the tasks made of them."""
