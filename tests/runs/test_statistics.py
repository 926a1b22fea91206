"""Intervals, summaries and paired differences."""

from __future__ import annotations

import math

import pytest

from mutualign.io.numbers import percent
from mutualign.runs.comparison import with_baselines
from mutualign.runs.history import LAST, ORACLE
from mutualign.runs.statistics import Interval, Summary, differences, fair_baselines, summarise
from tests.runs.samples import recipe, row


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


def test_a_gain_is_over_the_source_only_run_of_the_same_network_and_length():
    short, long = recipe("dann", epochs=1), recipe("dann", "mani")
    other = recipe("source_only", epochs=3)
    systems = {one.name: one for one in with_baselines([other, short, long])}
    assert (len(systems), fair_baselines({"short": short, "other": other})) == (5, {})
    pairs = fair_baselines(systems)
    assert pairs == {one.name: one.source_only().name for one in (short, long)}
    accuracy = {short.name: 0.5, pairs[short.name]: 0.4, long.name: 0.7, pairs[long.name]: 0.9, other.name: 0.1}
    rows = [row(name, seed, target=accuracy[name]) for seed in (0, 1) for name in systems]
    gains = {(one.recipe, one.baseline): one.target_by("last").mean for one in differences(rows, pairs)}
    assert gains == pytest.approx({(short.name, pairs[short.name]): 0.1, (long.name, pairs[long.name]): -0.2})
    assert differences([one for one in rows if one.recipe != pairs[long.name]], {long.name: pairs[long.name]}) == []


def test_a_number_that_rounds_to_zero_has_no_minus():
    assert Interval(-1e-9, None, 1).percent() == "0.0"
    assert Interval(-1e-9, None, 1).percent(sign="+") == "+0.0"
