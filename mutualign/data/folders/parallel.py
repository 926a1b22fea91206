"""A function of many files in parallel, in order, within a limit of memory, and stopped at once by an interrupt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
MOST_WAITING = 512  # calls that are started or finished before the first of them is taken
MOST_BYTES = 1 << 30  # of memory for the calls that are started; a single call may take more


def in_parallel(
    function: Callable[[Path], T], paths: Sequence[Path], what: str, cost: Callable[[Path], int] = lambda path: 0
) -> Generator[T, None, None]:
    """Yield the function of each path, in order, computed by threads; a terminal shows the progress.

    `cost` estimates the bytes of memory that a call takes. Calls that are not yet started when the consumer stops, for
    example because of Ctrl-C, are cancelled.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    waiting: deque[tuple[Future[T], int]] = deque()
    row, used = 0, 0
    pool = ThreadPoolExecutor()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(what, total=len(paths))
        try:
            while row < len(paths) or waiting:
                while row < len(paths) and len(waiting) < MOST_WAITING:
                    size = cost(paths[row])
                    if waiting and used + size > MOST_BYTES:
                        break
                    waiting.append((pool.submit(function, paths[row]), size))
                    row, used = row + 1, used + size
                future, size = waiting.popleft()
                result = future.result()
                used -= size
                progress.advance(bar)
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
