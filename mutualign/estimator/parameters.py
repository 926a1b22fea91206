"""Checks of DomainAdapter's parameters."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from sklearn.utils import check_random_state

from mutualign.runs.folder import RunFolder

EPOCHS = ("selected", "last")
ACCELERATORS = ("auto", "cpu", "cuda", "mps")


def check_parameters(adapter: Any) -> None:
    """Raise ValueError that names the first parameter with a wrong value, and says what it can be."""
    recipe, overrides, epoch, accelerator = adapter.recipe, adapter.overrides, adapter.epoch, adapter.accelerator
    validation_fraction, image_shape, run_folder = adapter.validation_fraction, adapter.image_shape, adapter.run_folder
    _require(recipe is None or isinstance(recipe, str | os.PathLike), "recipe", recipe, "a name, a path, or None")
    if isinstance(overrides, str):
        raise ValueError(f"overrides is a tuple or list of assignments; do you mean ({overrides!r},)?")
    is_list = isinstance(overrides, list | tuple) and all(isinstance(one, str) for one in overrides)
    _require(is_list, "overrides", overrides, 'a tuple or list of assignments, such as ("stages.0.epochs=2",)')
    _require(epoch in EPOCHS, "epoch", epoch, '"selected" or "last"')
    is_number = isinstance(validation_fraction, Real) and not isinstance(validation_fraction, bool)
    _require(is_number and 0 < validation_fraction < 1, "validation_fraction", validation_fraction, "between 0 and 1")
    if image_shape is not None:
        is_shape = isinstance(image_shape, list | tuple) and len(image_shape) == 3
        is_shape = is_shape and all(isinstance(size, Integral) and int(size) > 0 for size in image_shape)
        _require(is_shape, "image_shape", image_shape, "(height, width, channels), such as (28, 28, 1)")
    _require(accelerator in ACCELERATORS, "accelerator", accelerator, " or ".join(f'"{one}"' for one in ACCELERATORS))
    _require(
        run_folder is None or isinstance(run_folder, str | os.PathLike), "run_folder", run_folder, "a path or None"
    )
    if run_folder and (Path(run_folder) / "config.toml").exists() and not RunFolder.is_half_made(Path(run_folder)):
        raise ValueError(
            f"run_folder {run_folder} already holds a run\n"
            "  hint:    each fit needs a folder of its own, those of a search or cross-validation too: leave it out\n"
            "           there, and fit clone(search.best_estimator_).set_params(run_folder=...) afterwards"
        )


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {allowed}, got {str(value)[:80]!r}")


def seed_of(random_state: Any) -> int:
    """Return the seed that a `random_state` means; a RandomState, or None, gives another one each time."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
