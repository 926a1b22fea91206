"""What a run's page and `show` say to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from mutualign.evaluation.verdict import Kind, Range, Verdict
from mutualign.runs.next_steps import contradiction, current_alarms, next_steps


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("compared_with", ["source_only", None])
def test_after_every_verdict_there_is_something_to_do(kind, labels, compared_with):
    truth = {"true_accuracy": 0.9, "true_gain": Range(0.1, -0.1, 0.3) if compared_with else None} if labels else {}
    verdict = Verdict(kind, "A sentence.", "no target labels", compared_with=compared_with, **truth)
    steps = next_steps(verdict, Path("runs/a"), alarms=False)
    assert steps
    assert any("--label-these" in step for step in steps) != labels
    assert len(next_steps(verdict, Path("runs/a"), alarms=True)) == len(steps) + 1


def test_an_estimate_below_the_lower_bound_is_called_a_contradiction_that_labels_decide():
    said = contradiction(0.65, 0.36, Path("runs/a"), labelled=False)
    assert "contradict each other: at least one of them is wrong" in said
    assert said.endswith("Labelling 50 images decides: `mutualign report runs/a --label-these 50`.")
    assert contradiction(0.65, 0.36, Path("runs/a"), labelled=True).endswith("The target labels decide.")
    for bound, estimate in ((0.36, 0.65), (0.5, 0.5), (None, 0.5), (0.5, None)):
        assert contradiction(bound, estimate, Path("runs/a"), labelled=False) == ""


def test_where_the_source_is_not_learnt_nothing_comes_before_learning_it():
    verdict = Verdict("cannot tell", "A sentence.", "no target labels", source_learnt=False)
    (step,) = next_steps(verdict, Path("runs/a"), alarms=False)
    assert step.startswith("Train until the source is learnt")


@pytest.mark.parametrize("compared_with", [None, "source_only"])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_harm_is_an_alarm_also_if_the_source_only_run_came_later(whole, kind, compared_with):
    result = replace(whole.require_result(), alarms=[], compared_with=compared_with)
    verdict = Verdict(kind, "A sentence.", "no target labels", compared_with="source_only")
    found = [(alarm.name, alarm.stage) for alarm in current_alarms(result, verdict)]
    later = kind == "made it worse" and compared_with is None  # otherwise the end of the run has raised it
    assert found == ([("negative transfer", 1)] if later else [])
    assert current_alarms(replace(result, alarms=None), verdict) is None
