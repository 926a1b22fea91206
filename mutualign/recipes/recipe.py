"""Recipes: stages of training over one classifier, as data, read from TOML."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mutualign.data.features.settings import MOST_VIEWS
from mutualign.errors import MutualignError, nearest
from mutualign.io.hashing import sha256_of
from mutualign.io.text import LARGEST_TOML, LONGEST_KEY, parse_toml, read_text
from mutualign.io.typed import encode_json, parse_typed, to_plain
from mutualign.methods import METHODS
from mutualign.nn.backbones import require_known
from mutualign.nn.backbones.finetuned import FINETUNE
from mutualign.nn.pretrained import PUBLISHED
from mutualign.nn.weights import PRETRAINED, NetworkWeights
from mutualign.recipes.upgrade import RENAMED, upgrade_recipe

SOURCE_ONLY = "source_only"
LONGEST_NAME = 100
NAME = re.compile(rf"\w[\w.+-]{{0,{LONGEST_NAME - 1}}}")  # also the name of a folder


@dataclass(frozen=True)
class OptimConfig:
    """An optimiser and its learning-rate schedule; betas and epsilon are torch's defaults.

    Raises ValueError for values out of range, and for settings that the optimiser does not have.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3  # peak learning rate of the schedule
    schedule: Literal["constant", "one_cycle", "cosine", "dann_decay"] = "constant"
    weight_decay: float = 0.0
    momentum: float = 0.0  # of sgd
    nesterov: bool = False  # of sgd
    backbone_lr_factor: float = 1.0  # the backbone's learning rate is this times lr; 0.1 is usual for fine-tuning

    def __post_init__(self) -> None:
        for name in ("lr", "backbone_lr_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1 or not self.weight_decay >= 0:
            raise ValueError(
                f"momentum must be in [0, 1) and weight_decay 0 or more, got {self.momentum} and {self.weight_decay}"
            )
        if self.name != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f'momentum and nesterov belong to name = "sgd", not to "{self.name}"')
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


@dataclass(frozen=True)
class Stage:
    """One method over the classifier, with its optimiser, length and batch size.

    Raises ValueError for an unknown method, and for lengths and settings that are out of range.
    """

    method: str
    epochs: int  # an epoch is one pass over the source images (the target's, if the method uses no source),
    epoch_steps: int = 0  # minimum steps of an epoch: whole passes are repeated until it is reached
    batch_size: int = 64  # images of each domain in a step
    optim: OptimConfig = field(default_factory=OptimConfig)
    options: Any = None  # the method's settings, a dataclass; its defaults if absent

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.method not in METHODS:
            raise ValueError(f'unknown method "{self.method}"; {nearest(self.method, METHODS)}')
        config = METHODS[self.method].config
        if not isinstance(self.options, config):
            try:
                options = parse_typed(_completed(self.options or {}, config), config, "options", strict_keys=True)
            except MutualignError as error:
                raise ValueError(error) from error  # the reader of the file adds the place
            object.__setattr__(self, "options", options)


def _completed(options: Any, config: type[Any]) -> Any:
    """Fill in what tables inside the options leave out: the method's defaults, which may differ from their class's."""

    def filled(value: Any, default: Any) -> Any:
        if not (isinstance(value, Mapping) and dataclasses.is_dataclass(default)):
            return value
        fields = {one.name: getattr(default, one.name) for one in dataclasses.fields(default)}
        return to_plain(fields) | {key: filled(inner, fields.get(key)) for key, inner in value.items()}

    if not isinstance(options, Mapping):
        return options
    defaults = {
        one.name: one.default_factory() if callable(one.default_factory) else one.default
        for one in dataclasses.fields(config)
    }
    return {key: filled(value, defaults.get(key)) for key, value in options.items()}


@dataclass(frozen=True)
class Recipe:
    """A sequence of stages over the same classifier.

    Raises ValueError for a name that cannot name a folder, no stages, or a backbone that is not registered.
    """

    name: str
    stages: tuple[Stage, ...]
    description: str = ""
    backbone: str = "mani_cnn"  # a registered backbone, or timm:NAME
    backbone_weights: str = ""  # of a network of timm: "pretrained", or a .safetensors file; "" for random weights
    backbone_weights_sha256: str = ""  # of that file's content; found when the recipe is read
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 autocast where it is faster
    features: str = ""  # a pretrained network, or timm:NAME, whose features of image files are trained on
    views: int = 1  # of each image file, as features: the image, its mirror image, and random crops

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a recipe's name is up to {LONGEST_NAME} letters, digits, '.', '_', '-', '+', got {self.name[:120]!r}"
            )
        if not self.stages:
            raise ValueError("a recipe needs one or more [[stages]]")
        try:
            require_known(self.backbone)
        except MutualignError as error:
            raise ValueError(error) from error
        for chosen in (self.pretrained, self.initial_weights):
            try:
                if chosen:
                    chosen.check()
            except MutualignError as error:
                raise ValueError(error) from error
        if not 1 <= self.views <= MOST_VIEWS:
            raise ValueError(f"views must be from 1 to {MOST_VIEWS}, got {self.views}")
        if self.views > 1 and not self.features:
            raise ValueError('views are of features: name the network, such as features = "efficientnet_lite0"')
        if self.features and self.needs_images:
            raise ValueError(
                f'features = "{self.features}": a method turns, recolours or mixes images, which features are not'
            )

    @property
    def pretrained(self) -> NetworkWeights | None:
        """The frozen network whose features are trained on, if any."""
        return self._weights_of(self.features) if self.features else None

    @property
    def inputs(self) -> tuple[NetworkWeights | None, int]:
        """What is trained on: images, or features in some views. Runs on different inputs cannot be compared."""
        return self.pretrained, self.views

    @property
    def initial_weights(self) -> NetworkWeights | None:
        """The weights that the backbone starts from; None for random ones."""
        if self.features or not (self.backbone_weights or self.backbone.startswith(FINETUNE)):
            return None
        return self._weights_of(self.backbone)

    def _weights_of(self, network: str) -> NetworkWeights:
        published = PRETRAINED if network.removeprefix(FINETUNE) in PUBLISHED else ""
        return NetworkWeights(network, self.backbone_weights or published, self.backbone_weights_sha256)

    @property
    def is_source_only(self) -> bool:
        """Whether no stage adapts to the target: the definition of a source-only run."""
        return all(stage.method == SOURCE_ONLY for stage in self.stages)

    @property
    def needs_images(self) -> bool:
        """Whether a stage turns, recolours or mixes images, so that features do not serve."""
        return any(METHODS[stage.method].method.needs_images for stage in self.stages)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of a hash of everything that affects training: not of name and description."""
        return hashlib.sha256(encode_json([*self._shared_settings, self.stages]).encode()).hexdigest()[:8]

    def source_only(self) -> Recipe:
        """Return the fair baseline: the same network, optimisers and epochs, trained on the source only.

        For a stage without source images, whose epochs are passes over the target, it makes as many over the source.
        Its name ends in its digest, so that recipes with the same baseline share its runs.
        """
        stages = tuple(dataclasses.replace(stage, method=SOURCE_ONLY, options=None) for stage in self.stages)
        description = "Source only: the fair baseline of recipes with this network and as many epochs."
        baseline = dataclasses.replace(self, name=SOURCE_ONLY, stages=stages, description=description)
        return dataclasses.replace(baseline, name=f"{SOURCE_ONLY}-{baseline.digest}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for TOML that `parse_recipe` reads back as an equal recipe."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    def is_prefix_of(self, other: Recipe) -> bool:
        """Whether, with the same seed, training this recipe equals the first stages of training the other."""
        return self._shared_settings == other._shared_settings and self.stages == other.stages[: len(self.stages)]

    @property
    def _shared_settings(self) -> tuple[str | int, ...]:
        """Everything but the stages that affects training."""
        weights = self.backbone_weights_sha256 or self.backbone_weights
        return self.backbone, weights, self.precision, self.features, self.views


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    names = (file.name for file in files("mutualign.recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe of the package by name, or one of your own by the path of its TOML file, or of a run's config.toml.

    `overrides` are assignments such as `stages.0.epochs=5` or `precision=float32`. They append the digest to the
    recipe's name, so that runs with different settings never share a folder. Raises MutualignError for an unknown name,
    an unreadable file, an unknown key, or a value of the wrong type.
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
    if isinstance(data.get("recipe"), dict):
        data = upgrade_recipe(data["recipe"])  # of a run's config
    data, where = {"name": name} | data, f"recipe {name_or_path}"
    for override in (changes := list(overrides)):
        apply_override(data, override)
    recipe = with_digest(parse_recipe(data, where))
    if not changes:
        return recipe
    return dataclasses.replace(recipe, name=f"{recipe.name[: LONGEST_NAME - 9]}-{recipe.digest}")


def with_digest(recipe: Recipe) -> Recipe:
    """Note the SHA-256 of the recipe's file of weights, if there is one: it identifies the recipe, and not the path."""
    path = Path(recipe.backbone_weights)
    if recipe.backbone_weights in ("", PRETRAINED) or not path.is_file():
        return recipe  # a missing file is named when it is needed
    return dataclasses.replace(recipe, backbone_weights_sha256=sha256_of(path))


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one field of a recipe's plain data, as in `stages.0.optim.lr=2e-3`; a bare word is a string."""
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
    """Read a recipe from plain data. Raises MutualignError that starts with `where` and names the key."""
    stages = data.get("stages")
    for number, stage in enumerate(stages if isinstance(stages, list | tuple) else ()):
        for old in RENAMED.keys() & (stage.keys() if isinstance(stage, Mapping) else ()):
            raise MutualignError(
                f'{where}, stages.{number}: unknown key "{old}"\n  hint:    it is called "{RENAMED[old]}" now'
            )
    return parse_typed(data, Recipe, where, strict_keys=True)
