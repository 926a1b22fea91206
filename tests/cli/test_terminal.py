"""What the terminal shows."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console

from mutualign.cli.terminal import ProgressDisplay, print_alarm, show_run, sparkline, summary_tables
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import Interval, Summary
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder

RECIPE = load_recipe(
    "mani", ["stages.0.epochs=2", "stages.1.epochs=1", "stages.0.batch_size=25", "stages.1.batch_size=25"]
)


def shown(thing, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(thing)
    return console.file.getvalue()


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block():
    assert sparkline([float(value) for value in range(8)]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([5.0]) == "▁"


def test_a_long_curve_is_cut_to_the_width_and_keeps_both_ends():
    line = sparkline([float(value) for value in range(1000)], width=40)
    assert (len(line), line[0], line[-1]) == (40, "▁", "█")


def test_there_is_a_table_a_task_with_each_selection_that_says_that_the_oracle_needs_labels():
    target = {"last": Interval(0.7, 0.05, 3), "validator:target_entropy": Interval(0.65, 0.1, 3)}
    summary = Summary("one", "dann", Interval(0.987, 0.001, 3), target | {"oracle": Interval(0.8, None, 1)}, 61.0)
    tables = summary_tables(
        [summary, dataclasses.replace(summary, task="two"), dataclasses.replace(summary, recipe="x")]
    )
    assert [(table.title, table.row_count) for table in tables] == [("one", 2), ("two", 1)]
    text = shown(tables[0])
    for part in (
        "dann",
        "98.7 ± 0.1",
        "70.0 ± 5.0",
        "65.0 ± 10.0",
        "80.0",
        "needs labels",
        "61",
        "last",
        "target entropy",
    ):
        assert part in text


def test_a_table_with_intervals_fits_80_columns():
    interval = Interval(0.987, 0.051, 5)
    target = {"last": interval, "validator:information_maximisation": interval, "oracle": interval}
    (table,) = summary_tables([Summary("digits", "source_only", interval, target, 12345.0)])
    lines = shown(table, width=80).splitlines()
    assert sum("98.7 ± 5.1" in line for line in lines) == 1
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_off_a_terminal_each_epoch_is_one_line_and_each_alarm_a_paragraph(tmp_path, tiny_task):
    console = Console(file=io.StringIO(), width=60)
    with ProgressDisplay(console) as display:
        result = Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run", display=display).run()
    text = console.file.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("mani on tiny, seed 0: stage")]
    assert len(lines) == 3
    told = [line.removeprefix("alarm: ").strip() for line in text.splitlines() if line.startswith("alarm: ")]
    assert told == [alarm["name"] for alarm in result["alarms"]]  # so few steps leave the classes collapsed
    assert "predicted classes collapsed" in told
    assert "target" in lines[0]
    assert "pseudo-labels" in lines[2]


def test_an_alarm_with_markup_in_it_is_printed_as_it_is():
    console = Console(file=io.StringIO(), width=60)
    print_alarm(console, "name", "seen [bold]class[/bold]", "cause [/]")
    assert "seen [bold]class[/bold]" in console.file.getvalue()


def test_on_a_terminal_there_is_a_bar_a_stage_that_ends_full(tmp_path, tiny_task):
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with ProgressDisplay(console) as display:
        Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run", display=display).run()
    text = console.file.getvalue()
    assert "seed 0, 1/2" in text
    assert "seed 0, 2/2" in text
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
