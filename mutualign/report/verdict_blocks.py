"""The top of a run's page: the verdict in a word and a sentence, the numbers it rests on, and what to do next."""

from __future__ import annotations

from mutualign.evaluation.verdict import Headline, Range, Verdict
from mutualign.io.numbers import percent, points
from mutualign.report.page import Badge, KeyNumber
from mutualign.report.run_data import FinishedRun, spaced
from mutualign.runs.next_steps import contradiction, labels_show, next_steps

TONES: dict[Headline, str] = {
    "helped": "good",
    "made it worse": "bad",
    "no difference": "even",
    "cannot tell": "open",
    "not compared": "open",
    "baseline": "even",
    "source not learnt": "bad",
}
LIMITS = (
    "No evidence without target labels can see target classes that the source lacks, whose images are put into known "
    "classes; labels of the source that are wrong in a systematic way; or any other error that the network is sure of "
    "and all runs share. The lower bound assumes that there are none."
)


def limits(run: FinishedRun) -> str:
    """Say what no evidence without target labels can see, and what can."""
    return f"{LIMITS} {labels_show(run.config)}"


def badge(run: FinishedRun) -> Badge | None:
    """Return the verdict in a word, and what to do next; None without outputs."""
    if (verdict := run.verdict) is None:
        return None
    steps = next_steps(verdict, run.folder, alarms=bool(run.alarms))
    return Badge(verdict.headline, TONES[verdict.headline], steps)


def summary(run: FinishedRun) -> str:
    """Summarise the run in a sentence or two, the verdict first."""
    verdict, source = run.verdict, f"{percent(run.selected.source_accuracy)} of the held-out source images right"
    if run.has_target_labels:
        result = f"{percent(run.selected.target_accuracy)} of the target test images right."
    elif verdict is None or verdict.lower_bound is None or verdict.accuracy is None:
        result = f"{source}."
    else:
        least = f"at least {percent(verdict.lower_bound, 0)}, " if verdict.lower_bound else ""
        result = f"{source}, and of the target images {least}about {percent(verdict.accuracy, 0)} by an estimate."
    sentences = [
        verdict.sentence if verdict else "",
        f"`{run.name}` classifies {result}",
        _contradiction(verdict, run) if verdict else "",
    ]
    return " ".join(filter(None, sentences))


def _contradiction(verdict: Verdict, run: FinishedRun) -> str:
    return contradiction(verdict.lower_bound, verdict.accuracy, run.folder, labelled=run.has_target_labels)


def key_numbers(run: FinishedRun) -> list[KeyNumber]:
    """Return the numbers in large type: what labels say where there are any, the bound and the estimate, the source."""
    verdict, numbers = run.verdict, list[KeyNumber]()
    if run.has_target_labels:
        selected = f"target accuracy, epoch selected without labels ({run.selected.epoch})"
        numbers.append(KeyNumber(percent(run.selected.target_accuracy), selected))
        if verdict is not None and verdict.true_gain is not None:
            numbers.append(_gain(verdict.true_gain, "points over source only, by target labels"))
        numbers.append(KeyNumber(percent(run.last_stage.last.target_accuracy), "target accuracy, last epoch"))
    if verdict is not None:
        numbers += _without_labels(verdict, contradicts=bool(_contradiction(verdict, run)))
    numbers.append(KeyNumber(percent(run.selected.source_accuracy), "of held-out source images right"))
    n = len(run.alarms)
    return [*numbers, KeyNumber(str(n), "alarm" if n == 1 else "alarms")]


def _without_labels(verdict: Verdict, *, contradicts: bool) -> list[KeyNumber]:
    numbers = list[KeyNumber]()
    if verdict.lower_bound is not None:
        label = "of target images right, at least: bound at 95 %, no target labels"
        numbers.append(KeyNumber(f"\N{GREATER-THAN OR EQUAL TO} {percent(verdict.lower_bound, 0)}", label))
    if verdict.accuracy is not None:
        label = f"of target images right: estimate, no target labels ({spaced(verdict.estimator or '')})"
        label += ", contradicts the bound" if contradicts else ""
        numbers.append(KeyNumber(f"~ {percent(verdict.accuracy, 0)}", label))
    if verdict.gain is not None and verdict.true_gain is None:
        numbers.append(_gain(verdict.gain, "points over source only, estimated"))
    return numbers


def _gain(gain: Range, label: str) -> KeyNumber:
    return KeyNumber(points(gain.value), f"{label}: {points(gain.low)} to {points(gain.high)}")
