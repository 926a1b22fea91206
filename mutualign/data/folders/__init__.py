"""A user's own images: list, decode, cache."""
