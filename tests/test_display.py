"""What the terminal shows."""

from __future__ import annotations

import io

from rich.console import Console

from mutualign.comparison import Interval, Summary
from mutualign.display import ProgressDisplay, show_run, sparkline, summary_table
from mutualign.experiment import Experiment
from mutualign.recipes import load_recipe
from mutualign.training.runs import RunFolder

RECIPE = load_recipe(
    "mani", ["stages.0.epochs=2", "stages.1.epochs=1", "stages.0.batch_size=25", "stages.1.batch_size=25"]
)


def shown(thing) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(thing)
    return console.file.getvalue()


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block():
    assert sparkline([float(value) for value in range(8)]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([5.0]) == "▁"


def test_a_long_curve_is_cut_to_the_width_and_keeps_both_ends():
    line = sparkline([float(value) for value in range(1000)], width=40)
    assert (len(line), line[0], line[-1]) == (40, "▁", "█")


def test_the_table_has_each_selection_and_says_that_the_oracle_needs_labels():
    summary = Summary(
        "t", "dann", Interval(0.987, 0.001, 3), {"last": Interval(0.7, 0.05, 3), "oracle": Interval(0.8, None, 1)}, 61.0
    )
    text = shown(summary_table([summary]))
    for part in ("dann", "98.7 ± 0.1", "70.0 ± 5.0", "80.0", "needs labels", "61", "last"):
        assert part in text


def test_off_a_terminal_each_epoch_is_one_line(tmp_path, tiny_task):
    console = Console(file=io.StringIO(), width=60)
    with ProgressDisplay(console) as display:
        Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run", display=display).run()
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("mani on tiny, seed 0: stage") for line in lines)
    assert "target" in lines[0]
    assert "pseudo-labels" in lines[2]


def test_on_a_terminal_there_is_a_bar_a_stage_that_ends_full(tmp_path, tiny_task):
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with ProgressDisplay(console) as display:
        Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run", display=display).run()
    text = console.file.getvalue()
    assert "stage 1/2" in text
    assert "stage 2/2" in text
    assert "100 %" in text


def test_show_prints_config_curves_and_result(tmp_path, tiny_task):
    Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run").run()
    console = Console(file=io.StringIO(), width=140)
    show_run(console, RunFolder.open(tmp_path / "run"))
    text = console.file.getvalue()
    for part in (
        "tiny",
        "learning_rate 0.0001",
        "target_accuracy",
        "loss_mi",
        "oracle (needs labels)",
        "made in a test",
    ):
        assert part in text


def test_show_of_an_unfinished_run_says_how_to_go_on(tmp_path, tiny_task):
    Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run")
    console = Console(file=io.StringIO(), width=140)
    show_run(console, RunFolder.open(tmp_path / "run"))
    assert "not complete; go on with: mutualign run --resume" in console.file.getvalue()
