"""Estimates of what runs reach on their target, from what their folders keep: no data, and no target label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from mutualign.errors import MutualignError
from mutualign.evidence import estimation
from mutualign.evidence.estimation import Estimate, Outputs, Rival
from mutualign.training.runs import RunFolder

RANKED_BY = "information_maximisation"  # the validator that names the recipe that the others are held against
Selection = Literal["last", "selected"]


class RunEstimates(NamedTuple):
    """A run's estimates by estimator, the most trusted first; None where an estimator needs more runs."""

    run: RunFolder
    estimates: Mapping[str, Estimate | None]

    @property
    def best(self) -> tuple[str, Estimate]:
        """The most trusted estimator that could be used, and its estimate."""
        return next((name, estimate) for name, estimate in self.estimates.items() if estimate is not None)


def estimate_runs(folders: Sequence[RunFolder], selection: Selection = "selected") -> list[RunEstimates]:
    """Estimates for the last stage of each run, at its last epoch or at the one that was selected without labels.

    The more seeds the folders hold, the better: seeds of a run's own recipe tell of its errors, and the recipe that
    scores best without labels tells of the others'. Raises MutualignError if the runs are of different data, and for
    one that is not complete or is of a version that kept no outputs.
    """
    identities = dict.fromkeys(folder.config()["data"] for folder in folders)
    if len(identities) > 1:
        listed = "\n".join(f"  data     {identity}" for identity in identities)
        raise MutualignError(f"the runs are of different data; estimate those of each on their own\n{listed}")
    rivals = [_rival(folder, selection) for folder in folders]
    return [
        RunEstimates(folder, estimation.estimates(rival, rivals)) for folder, rival in zip(folders, rivals, strict=True)
    ]


def _rival(folder: RunFolder, selection: Selection) -> Rival:
    config = folder.config()
    name = f"stage-{len(config['recipe']['stages']) - 1}-{selection}-outputs"
    if folder.result() is None or not folder.has_checkpoint(name):
        raise MutualignError(
            f"{folder.path} keeps no outputs to estimate from: it is not complete, or of an earlier version\n"
            f"  do       `mutualign run --resume {folder.path}`, or train it again"
        )
    tensors, info = folder.load_tensors(name)
    outputs = Outputs(tensors["source_logits"], tensors["source_labels"], tensors["target_logits"])
    return Rival(outputs, config["recipe"]["name"], config["seed"], info["scores"][RANKED_BY])
