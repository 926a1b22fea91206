"""MutualignError, the error that a user can act on, and the phrases that errors share."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

OUT_OF_MEMORY = (
    "out of memory, or above the limit that is set for this process (ulimit -v)\n"
    "  hint:    close other programs or raise the limit, or use a smaller batch (--set stages.0.batch_size=16),\n"
    "           smaller images (--image-size), or fewer of them"
)
_ALLOCATION_FAILED = ("can't allocate memory", "out of memory")  # on a CPU, and on a GPU
LIKELY = 0.65  # similarity from which a name counts as a misspelling; "resnet18" and "small_resnet" have 0.6


class MutualignError(Exception):
    """Bad input or a bad environment; the command line prints it without a traceback."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had, on a CPU or a GPU.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 9 GiB.")), is_out_of_memory(KeyError())
    (True, False)
    """
    failed = isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATION_FAILED)
    return failed or isinstance(error, MemoryError)


def described(error: BaseException) -> str:
    """Return what an error says; the name of its type stands before it, unless it is a MutualignError.

    Its notes follow, a line each. What is not UTF-8 text, as names of files may be, is escaped.

    >>> described(MutualignError("no such task")), described(RuntimeError("a bug")), described(KeyError())
    ('no such task', 'RuntimeError: a bug', 'KeyError')
    """
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    kind = "" if isinstance(error, MutualignError) else type(error).__name__
    text = ": ".join(filter(None, [kind, str(error)]))
    return "\n".join([text, *getattr(error, "__notes__", [])]).encode("utf-8", "backslashreplace").decode()


def first_line(error: object) -> str:
    r"""Return the first line of what an error, or another reason, says; the name of its type if it says nothing.

    >>> first_line(MutualignError("no such task\n  hint:    see the list")), first_line(RuntimeError())
    ('no such task', 'RuntimeError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Suggest what a misspelled name may mean: names that start with it, else the most similar one, else all.

    >>> nearest("digitz", ["digits", "mnist-mnistm", "mnist-worn"])
    'did you mean "digits"?'
    >>> nearest("mnist", ["digits", "mnist-mnistm", "mnist-worn"])
    'did you mean "mnist-mnistm" or "mnist-worn"?'
    >>> nearest("resnet18", ["mlp", "small_resnet"])
    'allowed: mlp, small_resnet'
    """
    names, start = sorted(allowed), word.casefold()
    matches = [name for name in names if start and name.casefold().startswith(start)]
    if not matches:
        folded = {name.casefold(): name for name in names}
        matches = [folded[key] for key in difflib.get_close_matches(start, folded, n=1, cutoff=LIKELY)]
    if matches:
        return "did you mean " + " or ".join(f'"{name}"' for name in matches) + "?"
    return f"allowed: {', '.join(names) or 'nothing'}"


def shell_command(*words: object) -> str:
    """Join words to a command that can be pasted into a shell: words with blanks or special characters are quoted.

    >>> shell_command("mutualign", "show", "my runs/first")
    "mutualign show 'my runs/first'"
    """
    return shlex.join(map(str, words))


def this_command() -> str:
    """Return the command that this process was started with; `python -m mutualign` is written as `mutualign`."""
    program = Path(sys.argv[0])
    return shell_command(program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:])
