"""TOML and JSON from untrusted files: plain data or a ValueError, in bounded time and memory."""

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

# Strings and comments; one that is not closed extends to the end of the text, as it does for a parser.
_STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)' r"|'''.*?(?:'''|\Z)" r'|"(?:\\.|[^"\\\n])*"?' r"|'[^'\n]*'?" r"|#[^\n]*", re.DOTALL
)
_LONG_NUMBER = re.compile(r"0[xob][0-9A-Fa-f_]{100}")  # Python limits decimal ones only
_NO_KEY = re.compile(r"[^\w\-. \t]+")  # what ends a key


def read_text(path: Path, most: int) -> str:
    """Read a regular UTF-8 file of at most `most` bytes, without the byte order mark that some editors put first.

    Raises ValueError or OSError for anything else.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"larger than the {most:,} bytes that are read")
    return content.decode("utf-8-sig")


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text. Raises ValueError, and nothing else, if it is not TOML or nested too deep."""
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
    """Parse a JSON text. Raises ValueError, and nothing else, if it is not JSON or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
