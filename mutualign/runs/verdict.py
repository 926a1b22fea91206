"""The verdict on a finished run, from its folder and that of its fair source-only run."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from mutualign.errors import MutualignError
from mutualign.evaluation.verdict import Evidence, Verdict, judge, paired_gain
from mutualign.methods import METHODS
from mutualign.runs.estimates import run_outputs
from mutualign.runs.folder import RunFolder


def verdict_of(folder: RunFolder, true_accuracy: float | None = None) -> Verdict:
    """Judge a run at its selected epoch; the true accuracy, if there is one, is read from its result if it has one.

    Adaptation is compared with the fair source-only run next to it (`fair_baseline`). Raises MutualignError if the
    run's outputs are missing or damaged.
    """
    recipe, result = folder.config().recipe, folder.result()
    run, baseline = run_outputs(folder, "selected"), fair_baseline(folder)
    other = run_outputs(baseline, "selected") if baseline else None
    right = _right(folder)
    other_right = _right(baseline) if baseline else None
    gain = None if right is None or other_right is None else paired_gain(right, other_right)
    return judge(
        Evidence(
            run,
            other,
            is_baseline=recipe.is_source_only,
            trains_on_source=METHODS[recipe.stages[-1].method].method.uses_source,
            compared_with=baseline.config().recipe.name if baseline else None,
            true_accuracy=result.stages[-1].selected.target_accuracy if result else true_accuracy,
            true_gain=gain,
        )
    )


def fair_baseline(folder: RunFolder) -> RunFolder | None:
    """Find the complete source-only run with the same network, epochs, data and seed, in OUT/TASK/*/seed-N.

    None for a source-only run, for a folder of another form, and if no such run is next to this one.
    """
    config, place = folder.config(), folder.path.absolute()  # the path may be "."
    if config.recipe.is_source_only or place.name != f"seed-{config.seed}":
        return None
    wanted = config.recipe.source_only().digest
    for path in sorted(place.parent.parent.glob(f"*/{place.name}/result.json")):
        try:
            other = RunFolder.open(path.parent)
            found = other.config()
            same = found.data == config.data and found.seed == config.seed and found.recipe.digest == wanted
            if same and other.result() is not None:
                run_outputs(other, "selected")  # this line and the next raise if the run is damaged
                _right(other)
                return other
        except MutualignError:
            continue  # a damaged neighbour says nothing about this run
    return None


def _right(folder: RunFolder) -> Bool[Tensor, " n"] | None:
    """Which of the kept target test images are classified correctly; None without target labels."""
    store = folder.checkpoints
    if not store.has("review"):
        return None
    labels = store.load("review")[0].get("labels")
    if labels is None:
        return None
    predicted = run_outputs(folder, "selected").predicted
    return predicted == labels if len(labels) == len(predicted) else None
