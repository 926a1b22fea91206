"""Intervals, summaries and paired differences."""

from __future__ import annotations

import math

import pytest

from mutualign.io.numbers import percent
from mutualign.runs.history import LAST, ORACLE
from mutualign.runs.statistics import Interval, Summary, differences, summarise
from tests.runs.samples import row


def test_an_interval_equals_students_closed_form_for_two_values():
    # t(0.975, 1 degree of freedom) = tan(0.475 pi); the standard error of {a, b} is |a - b| / 2
    interval = Interval.of([0.6, 0.8])
    assert interval.mean == pytest.approx(0.7)
    assert interval.half_width == pytest.approx(math.tan(0.475 * math.pi) * 0.1)
    assert interval.percent() == f"70.0 ± {100 * math.tan(0.475 * math.pi) * 0.1:.1f}"
    assert Interval.of([0.5]) == Interval(0.5, None, 1)
    assert Interval.of([0.5, 0.5, 0.5]) == Interval(0.5, 0.0, 3)
    assert (percent(0.956), percent(None)) == ("95.6 %", "unknown")


def test_a_summary_has_means_over_seeds_by_selection():
    (summary,) = summarise(
        [row(seed=seed, selection=kind, target=t) for seed in (0, 1) for kind, t in (("last", 0.2), ("oracle", 0.4))]
    )
    target = {LAST: Interval(0.2, 0.0, 2), ORACLE: Interval(0.4, 0.0, 2)}
    assert summary == Summary("t", "r", Interval(0.5, 0.0, 2), target, 10.0)  # the fastest seed
    assert summary.target_by("oracle").mean == pytest.approx(0.4)
    (unknown,) = summarise([row(target=None)])
    assert unknown.target_by("last") is None


def test_differences_are_paired_by_seed_with_the_first_recipe():
    rows = [row("a", seed, target=accuracy) for seed, accuracy in enumerate((0.1, 0.5, 0.9))]
    rows += [row("b", seed, target=accuracy) for seed, accuracy in ((2, 1.0), (0, 0.2), (7, 0.0))]  # 0 and 2 are shared
    rows += [row("a", 0, "oracle", 0.3), row("c", 9, target=0.5), row("b", 0, target=0.5, task="other")]
    (difference,) = differences(rows)
    assert (difference.task, difference.recipe, difference.baseline) == ("t", "b", "a")
    assert difference.target.keys() == {LAST}
    gain = difference.target_by("last")
    assert gain.n == 2
    assert gain.mean == pytest.approx(0.1)
    assert gain.half_width == pytest.approx(0.0, abs=1e-12)  # +0.1 for either seed, however far apart the seeds are
    assert gain.percent(sign="+") == "+10.0 ± 0.0"


def test_a_number_that_rounds_to_zero_has_no_minus():
    assert Interval(-1e-9, None, 1).percent() == "0.0"
    assert Interval(-1e-9, None, 1).percent(sign="+") == "+0.0"
