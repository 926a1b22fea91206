"""Work for other processes: a text goes in, an outcome comes out; everything else is in files that both see."""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mutualign.errors import MutualignError, described
from mutualign.io.atomic import cannot_write
from mutualign.io.plugins import load_plugin, loaded_plugins
from mutualign.io.text import parse_json
from mutualign.io.typed import encode_json, parse_typed

POLL_SECONDS = 0.5  # between two looks for the stop file
# What Ctrl-C, schedulers and closed terminals send; not every system has all of them.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)
)


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended: complete, stopped with everything saved, failed with an error, or lost."""

    state: Literal["complete", "stopped", "failed", "lost"]
    message: str = ""


@dataclass(frozen=True)
class Work:
    """A piece of work: its name for people, its text, and the names of what must be done before it."""

    name: str
    text: str
    after: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Circumstances:
    """What all work of one command has in common."""

    folder: Path  # where the command was started: all paths are relative to it
    stop_file: Path  # all work stops, and saves, once this file exists
    threads: int  # of each piece of work
    plugins: tuple[str, ...] = ()
    accelerator: str = "auto"

    @classmethod
    def here(cls, out: Path, threads: int, accelerator: str = "auto") -> Circumstances:
        """Describe this process; the stop file will be in the folder `out`, which is made.

        Raises MutualignError if it cannot be made.
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(out, error) from error
        name = f".stop-{secrets.token_hex(4)}"
        return cls(Path.cwd(), out / name, threads, tuple(loaded_plugins()), accelerator)


Function = Callable[[str], str]  # takes the text of some work, returns that of an outcome

one_at_a_time = threading.Lock()  # an engine's worker may have several threads; the current folder is that of all


def do_work(text: str, expected: type[Any], work: Callable[[Any, StopFile], None]) -> str:
    """Do a piece of work in a worker: what `expected`, a dataclass with `circumstances`, describes.

    It has its share of threads: torch's, and those of NumPy and scikit-learn, which would take one for each core in
    every worker. Returns the outcome. Errors are outcomes, too, so that other work is not disturbed.
    """
    import sklearn.linear_model  # noqa: F401 - measuring needs it, and only libraries that are loaded can be limited
    import torch
    from threadpoolctl import threadpool_limits

    from mutualign.training.loop import Stopped

    with one_at_a_time:
        try:
            plain = parse_json(text)
            with _in_folder(Path(plain["circumstances"]["folder"])):
                for name in plain["circumstances"]["plugins"]:
                    load_plugin(name)
                found = parse_typed(plain, expected, "the text of some work")
                threads = found.circumstances.threads
                torch.set_num_threads(threads)
                with threadpool_limits(threads), StopFile(found.circumstances.stop_file).signals_too() as stop:
                    if stop():  # before it has begun
                        raise Stopped
                    work(found, stop)
        except Stopped:
            return encode_json(Outcome("stopped"))
        except Exception as error:
            return encode_json(Outcome("failed", described(error)))
    return encode_json(Outcome("complete"))


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Be in a folder within the context. Raises MutualignError if this machine does not have it."""
    if not folder.is_dir():
        raise MutualignError(
            f"{folder}: not on this worker's machine ({socket.gethostname()})\n"
            "  hint:    start the command in a folder that all machines share"
        )
    with chdir(folder):
        yield


class StopFile:
    """Whether to stop: a file exists, which every machine sees; a signal came; or whoever started this process died."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = False
        self._looked = float("-inf")

    def __call__(self) -> bool:
        """Whether to stop."""
        if not self._stop and time.monotonic() - self._looked > POLL_SECONDS:
            parent = multiprocessing.parent_process()
            orphaned = parent is not None and not parent.is_alive()
            self._stop, self._looked = orphaned or self.path.exists(), time.monotonic()
        return self._stop

    @contextmanager
    def signals_too(self) -> Iterator[StopFile]:
        """Within the context, signals stop the work as well, if this thread is one that may handle them."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self._stop = True
