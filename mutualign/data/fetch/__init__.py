"""Data files: found on disk or downloaded, always verified."""
