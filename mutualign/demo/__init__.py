"""Demo: finished runs in a browser."""
