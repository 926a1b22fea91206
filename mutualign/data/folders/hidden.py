"""Files and folders among a user's images that are not theirs."""

from __future__ import annotations

# Folders and files that systems leave.
SYSTEM_NAMES = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not looked at and not counted: its name starts with a dot, or a system made it.

    >>> is_hidden(".git"), is_hidden("@eaDir"), is_hidden("art")
    (True, True, False)
    """
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES
