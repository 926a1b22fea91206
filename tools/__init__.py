"""Scripts that make what the README shows."""
