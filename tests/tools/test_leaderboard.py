"""The leaderboard: gains, ranks and wins of made-up rows, worked out by hand."""

from __future__ import annotations

import pytest

from tests.tools.test_tables import row
from tools.gain_tables import gains_table, standings_table
from tools.heat_map import draw_heat_map
from tools.leaderboard import Board
from tools.results import read_rows


def rows(task: str, accuracies: dict[str, list[float]], seconds: float = 1.0) -> list[dict]:
    """Rows of methods with their accuracies by seed at the last epoch; the selected adds 0.01, the oracle 0.02."""
    return [
        row(f"equal.{method}", seed, selection, accuracy + more, task)
        | {"train_seconds": seconds * (1 if method == "source_only" else 3) * (1 + 9 * (seed == 1))}  # seed 1: slowed
        for method, found in accuracies.items()
        for seed, accuracy in enumerate(found)
        for selection, more in (("last", 0.0), ("validator:im", 0.01), ("oracle", 0.02))
    ]


ONE = rows("one", {"source_only": [0.5, 0.6], "good": [0.7, 0.8], "bad": [0.4, 0.5], "odd": [0.4, 0.9]})
TWO = rows("two", {"source_only": [0.8, 0.8], "good": [0.9, 0.9], "bad": [0.8, 0.8], "odd": [0.7, 0.7]}, seconds=2)


def board(rows: list[dict]) -> Board:
    return Board.of(read_rows(rows))


def test_gains_are_paired_by_seed():
    gains = board(ONE + TWO).gains()
    assert gains["good", "one"].mean == pytest.approx(0.2)
    assert gains["good", "one"].half_width == pytest.approx(0, abs=1e-9)
    assert gains["odd", "one"].mean == pytest.approx(0.1)
    assert gains["odd", "one"].half_width > 0.3  # the seeds disagree: -0.1 and +0.3
    assert not [method for method, _ in gains if method == "source_only"]


def test_standings_are_ordered_by_mean_rank_and_count_what_the_intervals_decide():
    standings = board(ONE + TWO).standings()
    assert [(one.method, one.rank) for one in standings] == [
        ("good", 1.0),  # first on both
        ("source_only", 2.75),  # third of four, then shares the second and third place
        ("odd", 3.0),  # second, last
        ("bad", 3.25),
    ]
    good, source_only, odd, bad = standings
    assert (good.better, good.worse, good.tasks) == (2, 0, 2)
    assert (bad.better, bad.worse) == (0, 1)  # no difference on the second task
    assert (odd.better, odd.worse) == (0, 1)  # the seeds of the first task disagree
    assert (source_only.better, source_only.worse) == (0, 0)
    assert good.gains["last"].mean == pytest.approx(0.15)
    assert source_only.gains["oracle"].mean == 0
    assert (good.cost, source_only.cost) == (3, 1)


def test_a_difference_of_one_image_is_certain_and_still_none():
    few = rows("few", {"source_only": [0.9, 0.9], "lost": [0.895, 0.895], "won": [0.905, 0.905], "ahead": [0.92, 0.92]})
    found = {one.method: (one.better, one.worse) for one in board(few).standings()}
    assert found == {"ahead": (1, 0), "won": (0, 0), "source_only": (0, 0), "lost": (0, 0)}
    assert "| `lost` | -0.5 ± 0.0 |" in gains_table({"rows": few})


def test_the_mean_gain_has_its_interval_over_seeds_not_over_tasks():
    odd = next(one for one in board(ONE + TWO).standings() if one.method == "odd")
    by_seed = [(-0.1 - 0.1) / 2, (0.3 - 0.1) / 2]
    assert odd.gains["last"].mean == pytest.approx(sum(by_seed) / 2)
    assert odd.gains["last"].n == 2


def test_a_task_that_is_not_complete_is_left_out():
    assert board(ONE + TWO[:-6]).tasks == ["one"]
    assert board(ONE + TWO).tasks == ["one", "two"]


def test_the_tables_show_gains_and_mark_what_is_certain():
    results = {"rows": ONE + TWO}
    text = "\n".join(gains_table(results))
    assert "| `source_only`, accuracy | 55.0 ± 63.5 | 80.0 ± 0.0 |" in text
    assert "| `good` | **+20.0 ± 0.0** | **+10.0 ± 0.0** |" in text
    assert "| `bad` | **-10.0 ± 0.0** | +0.0 ± 0.0 |" in text
    lines = standings_table(results)
    assert lines[2] == "| `good` | 1.0 | +15.0 ± 0.0 | +15.0 ± 0.0 | +15.0 ± 0.0 | 2 of 2 | 0 of 2 | 3.0 |"
    assert "| `source_only` | 2.8 |  |  |  |  |  | 1.0 |" in lines
    assert lines[-2] == "Better than source only on no task: `odd`, `bad`. Worse on at least one: `odd`, `bad`."
    assert lines[-1] == f"16 runs, {11 * (1 + 3 * 3 + 2 + 3 * 6) / 60:.0f} minutes of training in all."


def test_the_heat_map_has_whole_points_bold_where_certain_and_methods_of_one_board_alone_at_the_end():
    other = rows("digits", {"source_only": [0.5, 0.6], "odd": [0.5, 0.6], "images": [0.9, 0.8]})
    figure = draw_heat_map({"both": board(ONE + TWO), "images": board(other)})
    left, right = figure.axes
    methods = [label.get_text() for label in left.get_yticklabels()]
    assert methods == ["good", "odd", "bad", "images"]  # odd and bad gain 0 and -5 points
    shown = {(methods[int(text.get_position()[1])], int(text.get_position()[0])): text for text in left.texts}
    assert [shown["good", task].get_text() for task in (0, 1)] == ["+20", "+10"]
    assert shown["bad", 0].get_text() == "−10"  # noqa: RUF001
    assert [shown["images", task].get_text() for task in (0, 1)] == ["·", "·"]
    assert shown["good", 0].get_fontweight() == "bold" != shown["odd", 0].get_fontweight()
    assert [label.get_text() for label in right.get_xticklabels()] == ["8×8"]  # noqa: RUF001
