"""What evidence says about finished runs: the rows of tiny runs, and their summary by hand."""

from __future__ import annotations

import shutil

import blind_summary
import evidence
import numpy as np
import pytest
from scipy import stats

from mutualign.evaluation.verdict import paired_gain
from tools import blind_tables


def test_a_row_compares_what_is_said_without_labels_with_the_truth(measured):
    folders, found = measured
    assert [(row["baseline"], row["epoch"]) for row in found] == [
        *((True, "last"), (False, "last")),
        *((True, "selected"), (False, "selected")),
    ]
    stages = [folder.require_result().stages[-1] for folder in folders]
    for row, stage in zip(found, stages * 2, strict=True):
        chosen = stage.last if row["epoch"] == "last" else stage.selected
        assert row["accuracy"] == pytest.approx(chosen.target_accuracy, abs=1e-6)
        assert row["alarms"] == [alarm for alarm in row["alarms"] if alarm != "negative transfer"] or "gain" in row
    base, adapted = (evidence.read(folder, "last").right for folder in folders)
    assert found[1]["gain"] == pytest.approx(evidence.ranged(paired_gain(adapted, base)))
    assert "gain" not in found[0]
    assert blind_summary.summarise(found)["runs"] == {"images": 2}


def test_runs_that_are_not_complete_are_left_out(measured, run_benchmark, tmp_path, monkeypatch):
    folders, rows = measured
    for folder in folders:
        shutil.copytree(folder.path, tmp_path / "runs" / "tiny" / folder.path.parent.name / folder.path.name)
    broken = tmp_path / "runs" / "tiny" / "broken" / "seed-0"
    shutil.copytree(folders[1].path, broken)
    (broken / "result.json").unlink()
    monkeypatch.chdir(tmp_path)
    results, output = run_benchmark("evidence.py", "runs")  # a relative path, as in the docs
    assert "2 of 3 runs" in output
    name = results["rows"][0]["task"]
    found = sorted(results["rows"], key=lambda row: (row["epoch"], not row["baseline"]))
    assert found == [row | {"task": name, "kind": name} for row in rows]
    assert results["summary"]["runs"] == {name: 2}
    assert folders[0].require_result().versions["commit"] in results["commit"]


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


def test_the_tables_of_the_docs_show_rates_with_their_limits(measured):
    results = {"summary": blind_summary.summarise(measured[1])}
    tables = {}
    for name in ("estimates", "alarms", "verdicts", "choices"):
        lines = getattr(blind_tables, f"{name}_table")(results)
        tables[name] = head, _, *rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
        assert rows
        assert all(len(row) == len(head) for row in rows)
    head, _, bound, *_ = tables["estimates"]
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

    def left_over(name):  # residuals of the ranks within runs on the epoch
        ranks, epoch = np.concatenate([stats.rankdata(one["curves"][name]) for one in runs]), np.tile(np.arange(5), 6)
        return ranks - np.polyval(np.polyfit(epoch, ranks, 1), epoch)

    expected = np.corrcoef(left_over("knows"), left_over("accuracy"))[0, 1]
    assert cells["knows"]["given_the_epoch"]["mean"] == pytest.approx(expected)
    constant = [row("a", curves={"accuracy": [0.5, 0.5], "knows": [1.0, 2.0]})]
    assert blind_summary.correlation_cells(constant, "knows")["rank_correlation"] is None
