"""What an engine is, and the registry of engines. Imports no torch and no engine's package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from mutualign.errors import MutualignError, nearest
from mutualign.io.text import parse_toml
from mutualign.io.typed import parse_typed
from mutualign.runs.work import Function


@dataclass(frozen=True)
class NoOptions:
    """Options of an engine that has none."""


class Engine(ABC):
    """A place that does work, each piece in a process of its own. The first line of the docstring is its help text.

    Use it as a context: when the context ends, so do the workers that the engine has started.
    """

    name: ClassVar[str]  # set by `register_engine`
    options_type: ClassVar[type[Any]]  # a dataclass, set by `register_engine`
    at_once: int | None = None  # how much work is submitted at a time; None for all of it
    tells_beginning: ClassVar[bool] = False  # whether the future of work that has begun can no longer be cancelled
    threads: int = 1  # of each piece of work
    trouble: str = ""  # why the engine cannot see for now how its work goes; "" if it can

    @abstractmethod
    def __init__(self, jobs: int | None, options: Any) -> None:
        """Start, or connect. `jobs` is how many pieces of work to do at a time; None leaves it to the engine.

        Raises MutualignError if the engine's package is missing or its cluster cannot be reached.
        """

    @abstractmethod
    def submit(self, function: Function, text: str) -> Future[str]:
        """Have a function of a module called in a worker. The future has an exception if the worker was lost."""

    @abstractmethod
    def close(self) -> None:
        """End what the engine has started; work that still runs is lost."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


ENGINES: dict[str, type[Engine]] = {}
E = TypeVar("E", bound=type[Engine])


def register_engine(name: str, options: type[Any] = NoOptions) -> Callable[[E], E]:
    """Decorator: make an engine available by name; `options` is the dataclass of its own settings."""

    def register(engine: E) -> E:
        engine.name, engine.options_type = name, options
        ENGINES[name] = engine
        return engine

    return register


def open_engine(name: str, jobs: int | None = None, options: Iterable[str] = ()) -> Engine:
    """Start an engine, or connect to it. `options` are assignments, such as `address=tcp://head:8786`.

    Raises MutualignError for an unknown engine or option, naming the nearest, and if the engine cannot be used.
    """
    if name not in ENGINES:
        raise MutualignError(f'unknown engine "{name}"; {nearest(name, ENGINES)}')
    engine = ENGINES[name]
    settings: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise MutualignError(f'engine option "{option}": write it as key=value, for example partition=gpu')
        try:
            settings[key] = parse_toml(f"value = {value}")["value"]
        except ValueError:
            settings[key] = value
    return engine(jobs, parse_typed(settings, engine.options_type, f"engine {name}", strict_keys=True))


def missing_package(engine: str, package: str) -> MutualignError:
    """Describe an engine that cannot be used without its package."""
    return MutualignError(f"the engine {engine} needs {package}\n  hint:    pip install 'mutualign[{engine}]'")
