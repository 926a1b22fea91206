"""Estimates of the target accuracy of runs, from the outputs in their folders; no data and no target label is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mutualign.errors import MutualignError
from mutualign.evaluation.discrepancy import bound_accuracy
from mutualign.evaluation.estimators import Estimate, RunOutputs, estimates
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.runs.checkpoints import Which
from mutualign.runs.folder import RunFolder


@dataclass(frozen=True)
class RunEstimates:
    """A run's lower bound, and its estimates by estimator, the most trusted first; None if one needs more runs."""

    run: RunFolder
    outputs: RunOutputs
    estimates: Mapping[str, Estimate | None]

    @cached_property
    def bound(self) -> float:
        """The lower bound, computed when it is asked for: it takes most of the time."""
        return bound_accuracy(self.outputs)

    @property
    def best(self) -> tuple[str, Estimate]:
        """The most trusted estimator that could be used, and its estimate."""
        return most_trusted(self.estimates)


def most_trusted(found: Mapping[str, Estimate | None]) -> tuple[str, Estimate]:
    """Return the first estimator that could be used, and its estimate."""
    return next((name, estimate) for name, estimate in found.items() if estimate is not None)


def estimate_runs(folders: Sequence[RunFolder], which: Which = "selected") -> list[RunEstimates]:
    """Estimate the target accuracy of each run's last stage, at its last or its selected epoch.

    More seeds give better estimates: seeds of a run's own recipe show its errors, and the recipe with the best score by
    the default validator is the reference for the others. Raises MutualignError if the runs are on different data, if a
    run is not complete, and if its outputs are missing, damaged or not finite.
    """
    require_same_data(folders)
    runs = [run_outputs(folder, which) for folder in folders]
    return [RunEstimates(folder, run, estimates(run, runs)) for folder, run in zip(folders, runs, strict=True)]


def require_same_data(folders: Sequence[RunFolder]) -> None:
    """Raise MutualignError if runs are on different data; it lists them by data, the odd ones first."""
    by_data: dict[str, list[RunFolder]] = {}
    for folder in folders:
        by_data.setdefault(folder.config().data, []).append(folder)
    if len(by_data) < 2:
        return
    listed = ""
    for data, same in sorted(by_data.items(), key=lambda one: len(one[1])):
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        listed += f"\n  {same[0].path}{more}\n    {data}"
    raise MutualignError(f"the runs are on different data, which cannot be compared{listed}")


def run_outputs(folder: RunFolder, which: Which) -> RunOutputs:
    """Read the outputs of a run's last stage. Raises MutualignError if they are missing, damaged or not finite."""
    config = folder.config()
    stage = len(config.recipe.stages) - 1
    if not folder.checkpoints.has_outputs(stage, which):
        raise MutualignError(
            f"{folder.path} has no outputs to estimate from: it is not complete, or an early version made it\n"
            f"  hint:    {folder.to_continue}; in the other case, train it again"
        )
    tensors, info = folder.checkpoints.load_outputs(stage, which)
    if DEFAULT_VALIDATOR not in info.scores:
        raise MutualignError(f"{folder.path}: its outputs were not scored by {DEFAULT_VALIDATOR}")
    outputs = tensors["source_logits"], tensors["source_labels"], tensors["target_logits"]
    recipe = f"{config.recipe.name}-{config.recipe.digest}"  # recipes may have one name and different settings
    consistency = info.scores.get("augmentation_consistency")
    return RunOutputs(*outputs, recipe, config.seed, info.scores[DEFAULT_VALIDATOR], consistency)
