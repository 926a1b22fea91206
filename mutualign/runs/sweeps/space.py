"""The space of a sweep: which fields of a recipe are searched, and where, read from TOML."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutualign.errors import MutualignError
from mutualign.io.text import LARGEST_TOML, parse_toml, read_text
from mutualign.io.typed import parse_typed
from mutualign.recipes import Recipe, load_recipe

Value = int | float | bool | str
EXAMPLE = '"stages.0.optim.lr" = { low = 1e-4, high = 1e-2, log = true }'


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`: whole ones if both are written without a point, on a log scale if asked for.

    Raises ValueError for an empty range, and for a log scale that does not start above 0 or has steps.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log scale starts above 0 and has no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"the step must be above 0 and fit between low and high, got {self.step}")

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that a recipe must be able to take."""
        return (self.low, self.high)

    @property
    def whole(self) -> bool:
        """Whether it has whole numbers only."""
        return all(type(value) is int for value in (self.low, self.high, self.step or 1))

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int if self.whole else int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return self.step is None or math.isclose(steps, round(steps), abs_tol=1e-9)


@dataclass(frozen=True)
class Choices:
    """One of some values. Raises ValueError for fewer than two, or the same one twice."""

    choices: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
            raise ValueError("choices are two different values or more")

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that a recipe must be able to take."""
        return self.choices

    def __contains__(self, value: object) -> bool:
        return value in self.choices


@dataclass(frozen=True)
class Space:
    """Which fields of a recipe are searched, by their path, such as `stages.0.optim.lr`."""

    recipe: str  # its name, or the path of its file
    fixed: tuple[str, ...]  # fields that are set for all trials, as `--set` takes them
    parameters: dict[str, Range | Choices]

    def recipe_with(self, values: Mapping[str, Value]) -> Recipe:
        """Return the recipe with values of the parameters; its name ends in a digest of all settings."""
        return load_recipe(self.recipe, [*self.fixed, *(f"{key}={json.dumps(value)}" for key, value in values.items())])

    def extremes(self) -> list[Recipe]:
        """Return the recipe with each extreme value of each parameter."""
        return [self.recipe_with({key: value}) for key, one in self.parameters.items() for value in one.extremes]

    def unchanged(self) -> dict[str, Value] | None:
        """Return the values that the recipe has as it is; None if the space leaves out one of them."""
        plain = self.recipe_with({}).to_dict()
        values = {key: _field(plain, key) for key in self.parameters}
        return values if all(values[key] in parameter for key, parameter in self.parameters.items()) else None


def load_space(path: Path, fixed: Iterable[str] = ()) -> Space:
    """Read a space: `recipe = NAME`, and a table `[space]` of fields with low and high, or choices.

    Raises MutualignError that names file, key and hint for anything that no trial could use.
    """
    try:
        data = parse_toml(read_text(path, LARGEST_TOML))
    except (OSError, ValueError) as error:
        raise MutualignError(f"space {path}: cannot be read: {error}") from error
    where = f"space {path}"
    if unknown := [key for key in data if key not in ("recipe", "space")]:
        raise MutualignError(f'{where}: unknown key "{unknown[0]}"\n  hint:    the keys are recipe and [space]')
    recipe, table = data.get("recipe"), data.get("space")
    if not isinstance(recipe, str) or not isinstance(table, Mapping) or not table:
        raise MutualignError(
            f"{where}: it needs a recipe and fields to search\n"
            f'  hint:    recipe = "fast", then a line [space], then lines such as {EXAMPLE}'
        )
    parameters = {key: _parameter(value, f"{where}, {key}") for key, value in _fields(table, "")}
    space = Space(recipe, tuple(fixed), parameters)
    plain = space.recipe_with({})  # raises for an unknown recipe
    for key, parameter in parameters.items():
        for value in parameter.extremes:
            try:
                changed = space.recipe_with({key: value})
            except MutualignError as error:
                raise MutualignError(f"{where}, {key} = {json.dumps(value)}: {error}") from error
            if changed.inputs != plain.inputs:
                raise MutualignError(
                    f"{where}, {key} = {json.dumps(value)}: trials would train on other inputs\n"
                    f"  hint:    sweep each on its own, with --set {key}={json.dumps(value)} and another --out"
                )
    return space


def _field(plain: Any, path: str) -> Any:
    """Look up a field of a recipe's plain data by its path; None if it is not there."""
    try:
        for key in path.split("."):
            plain = plain[int(key) if isinstance(plain, list) else key]
    except (KeyError, TypeError):
        return None
    return plain


def _fields(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield each field with its path: keys with dots are tables in TOML, unless they are quoted."""
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and not {"low", "high", "choices", "log", "step"} & value.keys():
            yield from _fields(value, f"{path}.")
        else:
            yield path, value


def _parameter(value: Any, where: str) -> Range | Choices:
    if not isinstance(value, Mapping):
        raise MutualignError(f"{where}: expected low and high, or choices\n  hint:    {EXAMPLE}")
    expected: type[Range | Choices] = Choices if "choices" in value else Range
    try:
        return parse_typed(value, expected, where, strict_keys=True)
    except MutualignError as error:
        raise MutualignError(f"{error}\n  hint:    {EXAMPLE}") from error
