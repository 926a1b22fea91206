"""Runs: what is trained, where it is kept, and what came of it."""
