"""The SHA-256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mutualign.errors import MutualignError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal. Raises MutualignError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MutualignError(f"{path}: cannot be read: {error.strerror}") from error
