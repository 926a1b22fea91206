"""A table of labels is read for the run that it was written for, and for others: what it may be used for."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.evaluation.estimators import EstimatorInputs
from mutualign.evaluation.few_labels import plan_labelling
from mutualign.runs import labelling
from mutualign.runs.folder import RunFolder

N, NAMES, DATA = 400, ["a", "b", "c", "d"], "the images"


class Run(RunFolder):
    """The folder of a run whose outputs are random, in place of a trained one."""

    def __init__(self, seed):
        super().__init__(Path(f"run-{seed}"))
        logits = torch.randn(N, len(NAMES), generator=torch.Generator().manual_seed(seed))
        self.outputs = EstimatorInputs(logits, logits.argmax(1), logits)

    def config(self):
        return SimpleNamespace(data=DATA, class_names=NAMES)

    def require_result(self):
        return self.config()


@pytest.fixture
def runs(monkeypatch):
    ours, other, baseline = (Run(seed) for seed in range(3))
    monkeypatch.setattr(labelling, "run_outputs", lambda folder, which: folder.outputs)
    monkeypatch.setattr(labelling, "fair_baseline", lambda folder: baseline)
    return ours, other, baseline


@pytest.fixture
def rows(runs):
    """The rows of the table for the first run, all labelled."""
    ours, _, baseline = runs
    plan = plan_labelling(ours.outputs.predicted, baseline.outputs.predicted, 50, DATA)
    return [line(part, row) for part in ("random", "differing") for row in getattr(plan, part).tolist()]


def line(part, row):
    values = (f"{row}.png", row, part, "a", NAMES[row % 4], labelling._digest(DATA))
    return dict(zip(labelling.COLUMNS, values, strict=True))


def read(tmp_path, rows, folder, which="selected"):
    path = tmp_path / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, labelling.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return labelling.read_labelling(path, folder, which)


def random_and_apart(rows, folder, baseline):
    apart = folder.outputs.predicted != baseline.outputs.predicted
    return sum(row["part"] == "random" and bool(apart[row["row"]]) for row in rows)


def test_images_that_were_chosen_because_runs_differ_count_for_these_runs_only(tmp_path, runs, rows):
    ours, other, baseline = runs
    assert read(tmp_path, rows, ours).differing == random_and_apart(rows, ours, baseline) + 20
    assert read(tmp_path, rows, other).differing == random_and_apart(rows, other, baseline)
    assert read(tmp_path, rows, ours).images == read(tmp_path, rows, other).images == 30


def test_labels_are_compared_with_the_predictions_of_the_epoch_that_is_asked_for(tmp_path, runs, rows, monkeypatch):
    ours, other, baseline = runs
    expected = read(tmp_path, rows, other)
    at = {"last": {ours: other, baseline: baseline}, "selected": {ours: ours, baseline: baseline}}
    monkeypatch.setattr(labelling, "run_outputs", lambda folder, which: at[which][folder].outputs)
    assert read(tmp_path, rows, ours) != read(tmp_path, rows, ours, "last") == expected


def test_images_that_differ_are_all_labelled_or_none(tmp_path, runs, rows):
    ours, _, baseline = runs
    some = [row | {"label": "" if row is rows[-1] else row["label"]} for row in rows]
    with pytest.raises(MutualignError, match=r'1 image\(s\) of the part "differing" have no label(.|\n)*hint: '):
        read(tmp_path, some, ours)
    none = [row | {"label": row["label"] if row["part"] == "random" else ""} for row in rows]
    assert read(tmp_path, none, ours).differing == random_and_apart(rows, ours, baseline)


def test_a_table_without_some_of_the_images_that_were_drawn_is_not_read_as_a_random_sample(tmp_path, runs, rows):
    ours, _, baseline = runs
    with pytest.raises(MutualignError, match=r'images of the part "random" are missing(.|\n)*hint: '):
        read(tmp_path, rows[1:], ours)
    first = next(at for at, row in enumerate(rows) if row["part"] == "differing")
    without = [row for at, row in enumerate(rows) if at != first]
    assert read(tmp_path, without, ours).differing == random_and_apart(rows, ours, baseline)


@pytest.mark.parametrize("filled_in", [True, False])
def test_a_table_of_an_earlier_version_is_read_and_its_images_that_were_not_drawn_count_for_nothing(
    tmp_path, runs, rows, filled_in
):
    ours, _, baseline = runs
    random = [row for row in rows if row["part"] == "random"]
    others = sorted(set(range(N)) - {row["row"] for row in random})[:20]
    unsure = [line("unsure", row) | ({} if filled_in else {"label": ""}) for row in others]
    found = read(tmp_path, [*random, *unsure], ours)
    assert found == read(tmp_path, random, ours)
    assert (found.images, found.differing) == (30, random_and_apart(rows, ours, baseline))
