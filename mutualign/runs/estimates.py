"""Estimates of what runs reach on their target, from what their folders keep: no data, and no target label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mutualign.errors import MutualignError
from mutualign.evaluation import estimators as estimation
from mutualign.evaluation.estimators import Estimate, Outputs, RunOutputs
from mutualign.runs.checkpoints import Which
from mutualign.runs.folder import RunFolder

RANKED_BY = "information_maximisation"  # the validator that names the recipe that the others are held against


class RunEstimates(NamedTuple):
    """A run's estimates by estimator, the most trusted first; None where an estimator needs more runs."""

    run: RunFolder
    estimates: Mapping[str, Estimate | None]

    @property
    def best(self) -> tuple[str, Estimate]:
        """The most trusted estimator that could be used, and its estimate."""
        return next((name, estimate) for name, estimate in self.estimates.items() if estimate is not None)


def estimate_runs(folders: Sequence[RunFolder], which: Which = "selected") -> list[RunEstimates]:
    """Estimates for the last stage of each run, at its last epoch or at the one that was selected without labels.

    The more seeds the folders hold, the better: seeds of a run's own recipe tell of its errors, and the recipe that
    scores best without labels tells of the others'. Raises MutualignError if the runs are of different data, and for
    one that is not complete or is of a version that kept no outputs.
    """
    identities = dict.fromkeys(folder.config().data for folder in folders)
    if len(identities) > 1:
        listed = "\n".join(f"  data     {identity}" for identity in identities)
        raise MutualignError(f"the runs are of different data; estimate those of each on their own\n{listed}")
    runs = [_run_outputs(folder, which) for folder in folders]
    return [
        RunEstimates(folder, estimation.estimates(other, runs)) for folder, other in zip(folders, runs, strict=True)
    ]


def _run_outputs(folder: RunFolder, which: Which) -> RunOutputs:
    config = folder.config()
    stage = len(config.recipe.stages) - 1
    if not folder.is_complete or not folder.checkpoints.has_outputs(stage, which):
        raise MutualignError(
            f"{folder.path} keeps no outputs to estimate from: it is not complete, or was made by an early version\n"
            f"  hint:    mutualign run --resume {folder.path}, or train it again"
        )
    tensors, info = folder.checkpoints.load_outputs(stage, which)
    outputs = Outputs(tensors["source_logits"], tensors["source_labels"], tensors["target_logits"])
    return RunOutputs(outputs, config.recipe.name, config.seed, info.scores[RANKED_BY])
