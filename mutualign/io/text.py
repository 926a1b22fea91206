"""TOML and JSON that strangers may have written: plain data or a ValueError, in bounded time and memory."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

LARGEST_TOML = 4 << 20  # bytes; a recipe has less than one thousandth of it, a config may list unreadable images
LARGEST_JSON = 256 << 20  # bytes; the metrics of a hundred thousand epochs
LONGEST_KEY = 16  # parts of a dotted key: tomllib takes time that grows with the square of them

# The text between the keys; a string or a comment that does not end goes on to the end, as it does for a parser.
_STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)' r"|'''.*?(?:'''|\Z)" r'|"(?:\\.|[^"\\\n])*"?' r"|'[^'\n]*'?" r"|#[^\n]*", re.DOTALL
)
_LONG_NUMBER = re.compile(r"0[xob][0-9A-Fa-f_]{100}")  # without the limit that Python has for decimal ones
_NO_KEY = re.compile(r"[^\w\-. \t]+")  # what ends a key


def read_text(path: Path, most: int) -> str:
    """The text of a regular UTF-8 file of `most` bytes or fewer. Raises ValueError or OSError for anything else."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"larger than the {most:,} bytes that are read")
    return content.decode("utf-8")


def parse_toml(text: str) -> dict[str, Any]:
    """The table that a TOML text says. Raises ValueError, and nothing else, for what is not TOML or is too deep."""
    bare = _STRINGS.sub("s", text)
    if _LONG_NUMBER.search(bare):
        raise ValueError("a number of more than a hundred digits")
    if any(part.count(".") >= LONGEST_KEY for part in _NO_KEY.split(bare)):
        raise ValueError(f"a key of more than {LONGEST_KEY} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_json(text: str) -> Any:
    """The value that a JSON text says. Raises ValueError, and nothing else, for what is not JSON or is too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
