"""Having work done by an engine: what must come first, what is lost and tried again, and how all of it is stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from mutualign.errors import MutualignError, described, first_line
from mutualign.io.typed import decode_typed
from mutualign.runs.engines import Engine
from mutualign.runs.work import Function, Outcome, Work
from mutualign.training.loop import Stopped

ATTEMPTS = 2  # at work whose worker is lost: it may be the work that kills its worker
TICK_SECONDS = 1.0  # between two looks at the progress


class DispatchObserver:
    """Receives the progress of work. This one ignores it; override what you want to show."""

    def tick(self) -> None:
        """About a second has passed."""

    def trouble(self, what: str) -> None:
        """The engine cannot see for now how its work goes; "" once it can again."""

    def lost(self, work: Work, why: str) -> None:
        """The worker was lost; its work will be tried again."""

    def done(self, work: Work, outcome: Outcome) -> None:
        """Work has ended and will not be tried again."""


def dispatch(
    engine: Engine,
    function: Function,
    works: Iterable[Work],
    stop_file: Path,
    should_stop: Callable[[], bool],
    observer: DispatchObserver | None = None,
) -> dict[str, Outcome]:
    """Have all work done, and return the outcomes by name.

    `works` may be a generator: the next piece is taken when the engine has room. Work whose worker is lost is tried a
    second time. Once `should_stop` returns true, the stop file is made, which all workers see; when they have saved and
    ended, `Stopped` is raised.
    """
    dispatcher = _Dispatcher(engine, function, works, observer or DispatchObserver())
    try:
        while dispatcher.advance():
            if should_stop() and not dispatcher.stopping:
                stop_file.touch()
                dispatcher.stop()
    finally:
        stop_file.unlink(missing_ok=True)
    if dispatcher.stopping:
        raise Stopped
    return dispatcher.outcomes


class _Dispatcher:
    """The state of a dispatch."""

    def __init__(self, engine: Engine, function: Function, works: Iterable[Work], observer: DispatchObserver) -> None:
        self.engine, self.function, self.observer = engine, function, observer
        self.source = iter(works)
        self.held: list[Work] = []  # waits for other work
        self.running: dict[Future[str], Work] = {}
        self.attempts: Counter[str] = Counter()
        self.outcomes: dict[str, Outcome] = {}
        self.stopping = False
        self.trouble = ""  # of the engine, as the observer knows it

    def advance(self) -> bool:
        """Submit what there is room for, wait a moment, and take what is done. False when nothing is left."""
        while self._has_room() and (work := self._next()) is not None:
            self._submit(work)
        if not self.running:
            return False
        done, _ = wait(self.running, TICK_SECONDS, FIRST_COMPLETED)
        for future in done:
            self._take(self.running.pop(future), future)
        if (trouble := self.engine.trouble) != self.trouble:
            self.trouble = trouble
            self.observer.trouble(trouble)
        self.observer.tick()
        return True

    def stop(self) -> None:
        """Submit nothing more, and do not wait for what has not begun; what has begun sees the stop file, and saves.

        Where the engine does not tell the two apart, all is waited for: work that begins now ends at once.
        """
        self.stopping = True
        if self.engine.tells_beginning:
            self.running = {future: work for future, work in self.running.items() if not future.cancel()}

    def _has_room(self) -> bool:
        return not self.stopping and (self.engine.at_once is None or len(self.running) < self.engine.at_once)

    def _next(self) -> Work | None:
        """Take the first piece of work that waits for nothing else."""
        for work in self.held:
            if work.after <= self.outcomes.keys():
                self.held.remove(work)
                return work
        for work in self.source:
            if work.after <= self.outcomes.keys():
                return work
            self.held.append(work)
        return None

    def _submit(self, work: Work) -> None:
        """Give work to the engine. Raises MutualignError if it takes none, as after the loss of a cluster's head."""
        self.attempts[work.name] += 1
        try:
            future = self.engine.submit(self.function, work.text)
        except MutualignError:
            raise
        except Exception as error:  # of the engine's package
            raise MutualignError(
                f"the engine takes no more work\n  fault    {described(error)}\n"
                "  hint:    the same command resumes, once the engine can be reached"
            ) from error
        self.running[future] = work

    def _take(self, work: Work, future: Future[str]) -> None:
        if future.cancelled():
            outcome = Outcome("lost", "the engine has cancelled it")
        elif (error := future.exception()) is None:
            outcome = decode_typed(future.result(), Outcome, "the outcome of some work")
        else:
            outcome = Outcome("lost", f"its worker was lost: {first_line(described(error))}")
        if outcome.state == "stopped" and not self.stopping:
            outcome = Outcome("lost", "its worker was stopped by a signal")
        if outcome.state == "lost" and self.attempts[work.name] < ATTEMPTS and not self.stopping:
            self.observer.lost(work, outcome.message)
            self._submit(work)
            return
        self.outcomes[work.name] = outcome
        self.observer.done(work, outcome)
