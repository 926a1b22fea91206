"""Tables, curves and progress on the terminal."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest

from mutualign.cli.console import PlainConsole
from mutualign.cli.progress import ProgressDisplay
from mutualign.cli.show import sparkline
from mutualign.cli.tables import summary_tables
from mutualign.evaluation.records import EpochAudit, EpochRecord
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.history import LAST, ORACLE, Selection
from mutualign.runs.statistics import Interval, Summary


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block_and_keeps_both_ends():
    assert sparkline([float(value) for value in range(8)]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    line = sparkline([float(value) for value in range(1000)], width=40)
    assert (len(line), line[0], line[-1]) == (40, "▁", "█")


def test_a_table_per_task_fits_80_columns_and_says_that_the_oracle_needs_labels():
    interval = Interval(0.987, 0.051, 5)
    target = {LAST: interval, Selection("validator", "information_maximisation"): interval, ORACLE: interval}
    summary = Summary("digits", "source_only", interval, target, 12345.0)
    tables = summary_tables(
        [summary, dataclasses.replace(summary, task="other"), dataclasses.replace(summary, recipe="[/x]")]
    )
    assert [(table.title, table.row_count) for table in tables] == [("digits", 2), ("other", 1)]
    console = PlainConsole(file=io.StringIO(), width=80)
    console.print(tables[0])
    lines = console.file.getvalue().splitlines()
    assert sum("98.7 ± 5.1" in line for line in lines) == 2
    assert max(map(len, lines)) <= 80
    for part in ("[/x]", "needs labels", "information maximisation", "12345"):
        assert part in console.file.getvalue()


@pytest.mark.parametrize(("width", "shown"), [(40, " 40 % target 61"), (80, "source 98"), (200, "━")])
def test_progress_is_one_line_that_fits_and_shows_what_matters_most(width, shown):
    console = PlainConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with ProgressDisplay(console) as display:
        display.begin(load_recipe("mani"), "mnist-mnistm-resampled", 0)
        display.step(0, 40, 100)
        display.epoch(EpochRecord(0, 1, "dann", 1.0, {}, {}, 0.98, 0.61, EpochAudit([], [])))
    last = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", console.file.getvalue()).replace("\r", "\n").strip().splitlines()[-1]
    assert shown in last
    assert last.startswith("mani on mnist")
    assert len(last) <= width


def test_on_a_terminal_the_bar_of_the_run_in_training_is_seen_after_more_runs_than_lines():
    console = PlainConsole(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    with ProgressDisplay(console) as display:
        for seed in range(30):
            display.begin(load_recipe("dann"), "digits", seed)
            display.step(0, seed, 100)
            display.epoch(EpochRecord(0, 1, "dann", 1.0, {}, {}, 0.98, 0.61, EpochAudit([], [])))
        display._progress.refresh()
        text = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", console.file.getvalue()).replace("\r", "\n")
    lines = [f"dann on digits, seed {seed} {seed:3} % target 61.0 %, source 98.0 %" for seed in range(30)]
    assert text.splitlines()[-1].strip() == lines[-1]  # in training
    assert all(f"{line}\n" in text for line in lines[:-1])


def test_progress_is_a_line_per_epoch_in_a_file_and_a_full_bar_per_stage_on_a_terminal(tmp_path, tiny_task):
    recipe = load_recipe("mani", [f"stages.{i}.{short}" for i in (0, 1) for short in ("epochs=1", "batch_size=25")])
    for terminal in (False, True):
        console = PlainConsole(file=io.StringIO(), width=300, force_terminal=terminal)
        with ProgressDisplay(console) as display:
            run = Experiment.start(recipe, tiny_task, 0, tmp_path / str(terminal) / "t" / "run", observer=display)
            result = run.run()
        text = console.file.getvalue()
        if terminal:
            assert "seed 0, 1/2" in text
            assert "seed 0, 2/2" in text
            assert "100 %" in text
            continue
        lines = [line for line in text.splitlines() if line.startswith(f"{recipe.name} on tiny, seed 0: stage")]
        assert len(lines) == 2
        assert "pseudo-labels" in lines[1]
        shown = [line.removeprefix("alarm: ").strip() for line in text.splitlines() if line.startswith("alarm: ")]
        assert shown == [alarm.name for alarm in result.alarms]
        assert shown  # so few steps leave the source unlearnt
