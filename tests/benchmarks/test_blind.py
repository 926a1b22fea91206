"""The blind test: its tasks, the rows of tiny runs, and its summary by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import blind
import blind_summary
import numpy as np
import pytest
import torch
from blind_tasks import BlindTask, blind_tasks
from scipy import stats

from mutualign.evaluation.verdict import paired_gain
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.conftest import make_tiny_task
from tools.blind_tables import BLIND_TABLES


def test_half_of_each_kind_is_for_tuning_and_names_make_the_tasks():
    tasks = blind_tasks()
    assert Counter((task.kind, task.half) for task in tasks) == {
        **{("images", half): 25 for half in ("tune", "blind")},
        **{("photos", half): 3 for half in ("tune", "blind")},
        **{("vectors", half): 30 for half in ("tune", "blind")},
    }
    one, again = (next(task for task in tasks if task.name == "noise-0.5").load(Path()) for _ in range(2))
    rows = torch.arange(9)
    assert torch.equal(one.target_train.images.take(rows, 0), again.target_train.images.take(rows, 0))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out, task = tmp_path_factory.mktemp("blind"), make_tiny_task()
    recipe = load_recipe("dann", ["stages.0.epochs=2", "stages.0.batch_size=25"])
    folders = []
    for one in (recipe.source_only(), recipe):
        path = out / "tiny" / one.name / "seed-0"
        Experiment.start(one, task, 0, path).run()
        folders.append(RunFolder.open(path))
    return folders, blind.measure(BlindTask("tiny", "images", lambda data: task), folders)


def test_a_row_compares_what_is_said_without_labels_with_the_truth(rows):
    folders, found = rows
    assert [(row["baseline"], row["epoch"]) for row in found] == [
        *((True, "last"), (False, "last")),
        *((True, "selected"), (False, "selected")),
    ]
    stages = [folder.require_result().stages[-1] for folder in folders]
    for row, stage in zip(found, stages * 2, strict=True):
        chosen = stage.last if row["epoch"] == "last" else stage.selected
        assert row["accuracy"] == pytest.approx(chosen.target_accuracy, abs=1e-6)
        assert row["alarms"] == [alarm for alarm in row["alarms"] if alarm != "negative transfer"] or "gain" in row
    base, adapted = (blind.read(folder, "last").right for folder in folders)
    assert found[1]["gain"] == pytest.approx(blind.ranged(paired_gain(adapted, base)))
    assert "gain" not in found[0]
    assert blind_summary.summarise(found)["runs"] == {"images": 2}


def test_kinds_of_tasks_that_are_measured_at_different_times_share_a_file(rows, tmp_path):
    path, (_, images) = tmp_path / "blind.json", rows
    vectors = [row | {"kind": "vectors"} for row in images]

    def origin(commit):
        return {"command": "blind.py", "commit": commit, "hardware": "a machine"}

    blind.write(path, origin("a"), [*vectors, *images])
    blind.write(path, origin("b"), [row | {"seed": 1} for row in images])
    found = json.loads(path.read_text())
    assert [(row["kind"], row["seed"]) for row in found["rows"]] == [("images", 1)] * 4 + [("vectors", 0)] * 4
    assert found["origins"] == {"images": origin("b"), "vectors": origin("a")}
    assert (found["command"], found["commit"]) == ("blind.py", "b, a")
    assert found["summary"] == json.loads(json.dumps(blind_summary.summarise(found["rows"])))


def row(task="a", **facts):
    return {"task": task, "baseline": False, "accuracy": 0.5, "source_accuracy": 1.0, "alarms": []} | facts


def test_a_task_counts_once_with_the_share_of_its_runs():
    rows = [row("a", x=True), row("a", x=False), row("b", x=True), row("c", x=True)]
    found = blind_summary.rate(rows, lambda row: row["x"])
    assert (found["rate"], found["tasks"]) == (pytest.approx(2.5 / 3), 3)
    assert blind_summary.rate(rows[2:], lambda row: row["x"])["low"] == pytest.approx(0.025 ** (1 / 2))  # 2 of 2
    assert blind_summary.rate([], bool) is None


def test_errors_and_coverage_are_means_over_tasks():
    rows = [row("a", e=[0.6, 0.4, 0.8]), row("a", e=[0.7, 0.6, 0.8]), row("b", e=[0.2, 0.1, 0.3])]
    line = blind_summary.estimate_line("e", rows, lambda row: row["e"], "accuracy")
    assert line["mean_absolute_error"] == pytest.approx(100 * (0.15 + 0.3) / 2)
    assert line["bias"] == pytest.approx(100 * (0.15 - 0.3) / 2)
    assert line["holds"]["rate"] == pytest.approx((0.5 + 0) / 2)
    assert line["width"] == pytest.approx(100 * (0.3 + 0.2) / 2)


@pytest.mark.parametrize(
    ("verdict", "gain", "wrong"),
    [
        ("helped", [0.1, 0.05, 0.2], False),
        ("helped", [-0.01, -0.05, 0.2], True),
        ("made it worse", [0.01, -0.05, 0.2], True),
        ("no difference", [0.005, 0.001, 0.01], False),
        ("no difference", [0.05, 0.01, 0.1], True),
        ("cannot tell", [-0.5, -0.6, -0.4], False),
    ],
)
def test_a_verdict_is_wrong_if_its_sign_is_whatever_the_size(verdict, gain, wrong):
    assert blind_summary.is_wrong(row(verdict=verdict, gain=gain)) == wrong


def test_hits_and_false_alarms_are_counted_where_the_truth_is_clear():
    facts = [(0.5, ["low target accuracy"]), (0.5, []), (0.85, ["low target accuracy"]), (0.95, [])]
    rows = [
        row(str(at), accuracy=accuracy, alarms=alarms, class_shift=0.0, identical=False)
        for at, (accuracy, alarms) in enumerate(facts)
    ]
    line = next(one for one in blind_summary.alarm_lines(rows) if one["alarm"] == "low target accuracy")
    assert (line["hit"]["rate"], line["false"]["rate"], line["runs"]) == (0.5, 0.0, [2, 1])


def test_the_tables_of_the_docs_show_rates_with_their_limits(rows):
    results = {"summary": blind_summary.summarise(rows[1])}
    for lines_of in BLIND_TABLES.values():
        head, lines = lines_of(results)
        assert lines
        assert all(len(line) == len(head) for line in lines)
    head, (bound, *_) = BLIND_TABLES["blind-estimates"](results)
    held = dict(zip(head, bound, strict=True))["range holds"]
    first = results["summary"]["estimates"][0]["holds"]
    assert held == f"{100 * first['rate']:.0f} % ({100 * first['low']:.0f} to {100 * first['high']:.0f})"


def test_a_score_that_only_rises_with_the_epoch_is_seen_for_what_it_is():
    rng = np.random.default_rng(0)
    runs = []
    for run in range(6):  # accuracy rises; one score is a noisy clock, the other knows the accuracy
        accuracy = 0.5 + 0.1 * np.arange(5) + 0.05 * rng.normal(size=5)
        clock, knows = np.arange(5) + 0.1 * rng.normal(size=5), accuracy + 0.01 * rng.normal(size=5)
        curves = {"accuracy": accuracy.tolist(), "clock": clock.tolist(), "knows": knows.tolist()}
        runs.append(row("a", curves=curves, run=run))
    cells = {name: blind_summary.correlation_cells(runs, name) for name in ("last", "clock", "knows")}
    plain = {name: cell["rank_correlation"]["mean"] for name, cell in cells.items()}
    assert plain["clock"] > 0.8
    assert plain["last"] > 0.8
    assert abs(cells["clock"]["given_the_epoch"]["mean"]) < 0.4
    assert cells["knows"]["given_the_epoch"]["mean"] > 0.9
    assert cells["last"]["given_the_epoch"] is None

    def left_over(values):  # residuals of the ranks on the epoch's
        ranks, epoch = stats.rankdata(values), stats.rankdata(list(range(5)) * 6)
        return ranks - np.polyval(np.polyfit(epoch, ranks, 1), epoch)

    score, truth = ([value for one in runs for value in one["curves"][name]] for name in ("clock", "accuracy"))
    expected = np.corrcoef(left_over(score), left_over(truth))[0, 1]
    assert cells["clock"]["given_the_epoch"]["mean"] == pytest.approx(expected)
    constant = [row("a", curves={"accuracy": [0.5, 0.5], "knows": [1.0, 2.0]})]
    assert blind_summary.correlation_cells(constant, "knows")["rank_correlation"] is None
