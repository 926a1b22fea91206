"""The console of all commands: text as it is, never as markup, with control characters escaped; bars of progress."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

# Controls, line and paragraph separators, invisible and direction marks, halves of surrogate pairs; not tab, newline.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_ASCII = str.maketrans(
    {"±": "+/-", "→": "->", "…": "...", "\u2013": "-"} | dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True))
)


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Escape control characters, which could move the cursor or hide text, and what the encoding cannot express.

    >>> printable("a \x1b[2J class"), printable("86.9 ± 0.8 é", "ascii")
    ('a \\x1b[2J class', '86.9 +/- 0.8 \\xe9')
    """
    safe = _CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
    if encoding.lower().startswith("utf"):
        return safe
    return safe.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)


def columns(console: Console) -> int:
    """The width of text: that of the terminal, 80 at most."""
    return min(console.width, 80)


def print_wrapped(console: Console, text: str) -> None:
    """Print text in lines; what stands between backticks stays in one, without them, so that it can be copied."""
    whole = re.sub("`([^`]*)`", lambda found: found[1].replace(" ", "\0"), text)
    for line in textwrap.wrap(whole, columns(console) - 2, break_long_words=False, break_on_hyphens=False):
        console.print(f"  {line}".replace("\0", " "))


class PlainConsole(Console):
    """A console for text from outside: class names, file names, messages.

    Nothing is markup, an emoji code or a control character. Text is not wrapped, so that commands and paths can be
    copied; tables are.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a string, wherever it stands, into text that is safe to show."""
        return super().render_str(printable(text, self.encoding), **settings)

    def on_broken_pipe(self) -> None:
        """Be silent once the reader is gone: training goes on without it."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print objects; strings are not wrapped."""
        super().print(*objects, **{"soft_wrap": all(isinstance(one, str) for one in objects)} | settings)


AnyBars = TypeVar("AnyBars", bound="Bars")


class Bars:
    """A display with bars of progress, which are there as long as its context is open."""

    _progress: Progress

    def __enter__(self: AnyBars) -> AnyBars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
