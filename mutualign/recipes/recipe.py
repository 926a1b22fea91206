"""A recipe: what is trained, stage by stage. Frozen dataclasses, read from TOML."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from mutualign.algorithms import ALGORITHMS
from mutualign.errors import MutualignError, nearest
from mutualign.nn.backbones import TIMM, require_known
from mutualign.plain_files import LARGEST_TOML, LONGEST_KEY, parse_toml, read_text

LARGEST_NUMBER = 2**31 - 1  # a whole number above it is a mistake in any field

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One algorithm over the classifier, with its optimiser (Adam), its length and its batch size."""

    algorithm: str
    epochs: int  # an epoch is a pass over the source images,
    epoch_steps: int = 0  # or as many passes as it takes for this many steps: few images are seen often
    batch_size: int = 64  # images of each domain in a step
    learning_rate: float = 1e-3  # the highest of its schedule
    schedule: Literal["constant", "one_cycle"] = "constant"  # of the learning rate over the stage
    options: Any = None  # the algorithm's own settings, of its config type; absent: its defaults

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise MutualignError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.algorithm not in ALGORITHMS:
            raise MutualignError(f'unknown algorithm "{self.algorithm}"; {nearest(self.algorithm, ALGORITHMS)}')
        if self.options is None:
            config_type, _ = ALGORITHMS[self.algorithm]
            object.__setattr__(self, "options", config_type())


@dataclass(frozen=True)
class Recipe:
    """A sequence of stages over the same classifier."""

    name: str
    description: str
    stages: tuple[Stage, ...]
    backbone: str = "published_cnn"  # of BACKBONES, or timm:NAME
    backbone_weights: str = ""  # of a timm backbone: the .safetensors file that training begins with; "": random ones
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 autocast where the hardware has it

    def __post_init__(self) -> None:
        if not self.stages:
            raise MutualignError("a recipe needs at least one stage")
        require_known(self.backbone)
        if self.backbone_weights and not self.backbone.startswith(TIMM):
            raise MutualignError(
                f'backbone_weights is for backbones of timm, not for "{self.backbone}"\n'
                "  do       leave it out, or choose the network that the file is for: backbone=timm:NAME"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain data that TOML can hold and `parse_recipe` reads back to an equal recipe."""
        return dataclasses.asdict(self)

    def is_prefix_of(self, other: Recipe) -> bool:
        """Whether training this recipe is the beginning of training the other, bit for bit, with the same seed."""
        settings = [(each.backbone, each.backbone_weights, each.precision) for each in (self, other)]
        return settings[0] == settings[1] and self.stages == other.stages[: len(self.stages)]


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    names = (file.name for file in files("mutualign.recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe of the package by name, or of the user's by the path of its TOML file.

    `overrides` are assignments such as `stages.0.epochs=5` or `precision=float32`.
    Raises MutualignError for an unknown name, an unreadable file, an unknown key, a value of the wrong type.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise MutualignError(f"no recipe file {path}")
        try:
            text, name = read_text(path, LARGEST_TOML), path.stem
        except (OSError, ValueError) as error:
            raise MutualignError(f"recipe {path}: cannot be read: {error}") from error
    elif name_or_path in recipe_names():
        text, name = (files("mutualign.recipes") / f"{name_or_path}.toml").read_text(encoding="utf-8"), name_or_path
    else:
        raise MutualignError(
            f'unknown recipe "{name_or_path}"; {nearest(name_or_path, recipe_names())} (or give the path of a .toml)'
        )
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise MutualignError(f"recipe {name_or_path}: not TOML: {error}") from error
    for override in overrides:
        apply_override(data, override)
    return parse_recipe({"name": name} | data, f"recipe {name_or_path}")


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one field of a recipe's plain data: `stages.0.learning_rate=2e-3`; a bare word is a string."""
    path, equals, text = override.partition("=")
    if not equals:
        raise MutualignError(f'override "{override}": write it as key=value, for example stages.0.epochs=5')
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    *parents, last = path.strip().split(".")
    if len(parents) >= LONGEST_KEY:
        raise MutualignError(f'override "{override[:80]}": no field lies that deep')
    where: Any = data
    for key in parents:
        if isinstance(where, list):
            if not key.isdecimal() or len(key) > 9 or int(key) >= len(where):
                raise MutualignError(f'override "{override}": there are stages 0 to {len(where) - 1}, not "{key}"')
            where = where[int(key)]
        else:
            where = where.setdefault(key, {})
        if not isinstance(where, dict | list):
            raise MutualignError(f'override "{override}": "{key}" is a value, not a table')
    if not isinstance(where, dict):
        raise MutualignError(f'override "{override}": name a field of the stage, for example {path}.epochs')
    where[last] = value


def parse_recipe(data: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from plain data; `where` begins the message of an error."""
    stages = data.get("stages")
    if not isinstance(stages, list | tuple) or not all(isinstance(stage, Mapping) for stage in stages):
        raise MutualignError(f"{where}: needs one or more [[stages]] tables")
    parsed = tuple(_parse_stage(stage, f"{where}, stages.{i}") for i, stage in enumerate(stages))
    return _construct(Recipe, {**data, "stages": parsed}, where)


def _parse_stage(data: Mapping[str, Any], where: str) -> Stage:
    stage = _construct(Stage, {key: value for key, value in data.items() if key != "options"}, where)
    options = _construct(type(stage.options), data.get("options", {}), f"{where}.options")
    return dataclasses.replace(stage, options=options)


def _construct(cls: type[T], data: Any, where: str) -> T:
    """A dataclass from a table: every key known, every value of its field's type, nested tables too."""
    if not isinstance(data, Mapping):
        raise MutualignError(f"{where}: expected a table, got {data!r}")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in data.items():
        if key not in hints:
            raise MutualignError(f'{where}: unknown key "{key}"; {nearest(key, hints)}')
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            values[key] = _construct(hint, value, f"{where}.{key}")
        else:
            values[key] = _checked(value, hint, f"{where}, {key}")
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}  # type: ignore[arg-type]
    if missing := required - values.keys():
        raise MutualignError(f"{where}: missing {', '.join(sorted(missing))}")
    try:
        return cls(**values)
    except MutualignError as error:
        raise MutualignError(f"{where}: {error}") from error


def _checked(value: Any, hint: Any, where: str) -> Any:
    """The value, if it is of the type that the field's annotation names; a whole number serves as a float."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in (allowed := typing.get_args(hint)):
            raise MutualignError(f'{where}: got "{value}"; allowed: {", ".join(map(str, allowed))}')
        return value
    if type(value) is int and hint in (int, float) and abs(value) > LARGEST_NUMBER:
        raise MutualignError(f"{where}: expected a number up to {LARGEST_NUMBER}, got one of {len(str(value))} digits")
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise MutualignError(f"{where}: expected {hint.__name__}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise MutualignError(f"{where}: expected a finite number, got {value}")
    return value
