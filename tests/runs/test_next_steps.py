"""What a run's page and `show` say to do next."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mutualign.evaluation.verdict import Kind, Range, Verdict
from mutualign.runs.next_steps import next_steps


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


def test_where_the_source_is_not_learnt_nothing_comes_before_learning_it():
    verdict = Verdict("cannot tell", "A sentence.", "no target labels", source_learnt=False)
    (step,) = next_steps(verdict, Path("runs/a"), alarms=False)
    assert step.startswith("Train until the source is learnt")
