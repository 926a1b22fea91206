"""Run folders of earlier versions: every command reads them, those that were stopped go on, newer ones are refused."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from mutualign.cli import app as cli
from mutualign.data.datasets import TASKS, DatasetEntry
from mutualign.errors import MutualignError
from mutualign.io.tensors import unpack
from mutualign.runs.comparison import Comparison
from mutualign.runs.folder import FORMAT, RunFolder
from mutualign.runs.predictor import Predictor
from mutualign.runs.spec import RunSpec
from tests.conftest import make_tiny_task

# Each is made by make.py beside it, of the version that its name tells; 9bf8c3a wrote no SHA-256 into checkpoints.
ARCHIVES = sorted((Path(__file__).parents[1] / "fixtures" / "run_folders").glob("format-*.tar.xz"))
NAMES = ("pairs", "views")  # recipes: dann, mani; source_only, mutual_align
TOLERANCE = 1e-3  # relative: of losses after seven steps, on another machine or with another torch


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def runs(request, tmp_path_factory):
    """The folder of an archive's runs: NAME/complete and NAME/stopped."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def mutualign(monkeypatch, capsys, tmp_path):
    """Call the command line in this process, with the tiny task known to it; gives exit code, output and errors."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setitem(TASKS, "tiny", DatasetEntry("of tests", (), lambda folder: make_tiny_task()))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mutualign", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return (code, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def losses(path):
    """The mean losses of every epoch, by where they are."""
    records = RunFolder.open(path).metrics()
    return {(r["stage"], r["epoch"], key): r["means"][key] for r in records for key in r["means"] if "loss" in key}


def chosen_epochs(path):
    """Of the last stage, by the way of choosing."""
    return {way: one["epoch"] for way, one in RunFolder.open(path).result()["stages"][-1]["selections"].items()}


def test_there_is_an_archive_of_every_format_with_and_without_a_sha256():
    assert {int(path.name.split("-")[1]) for path in ARCHIVES} == set(range(1, FORMAT + 1))
    assert {"format-1-9bf8c3a.tar.xz", "format-1-5f9e706.tar.xz"} <= {path.name for path in ARCHIVES}
    assert sum(path.stat().st_size for path in ARCHIVES) < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_a_complete_run_is_shown_and_ranked_and_its_result_is_there(runs, mutualign, name, faults):
    path = runs / name / "complete"
    with faults.injected("old runs stay readable"):
        folder = RunFolder.open(path)
        plan = RunSpec.of(folder)
        assert (plan.recipe.name, plan.task, plan.seed) == (name, "tiny", 0)
        assert [stage["epochs"] for stage in folder.result()["stages"]] == [2, 2]
        code, out, _ = mutualign("show", path)
        assert code == 0
        assert f"stage 2: {plan.recipe.stages[1].method}" in out
        code, out, _ = mutualign("select", path, runs / name / "stopped")
        assert code == 0
        assert str(path) in out
        code, _, _ = mutualign("run", "--resume", path)  # nothing is left to do
        assert code == 0


def test_runs_are_estimated_together_and_reported(runs, mutualign, tmp_path, faults):
    with faults.injected("old runs stay readable", 2):
        code, out, _ = mutualign("estimate", *(runs / name / "complete" for name in NAMES))
        assert code == 0
        assert all(name in out for name in NAMES)
        code, _, err = mutualign("report", runs / "views" / "complete", "--out", tmp_path / "report.html")
        assert (code, err) == (0, "")
        assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epoch", ["selected", "last"])
def test_a_classifier_gives_what_it_gave_then(runs, mutualign, tmp_path, tiny_task, name, epoch, faults):
    """The run kept the logits of all target test images, in their order: twenty are fewer than the most it keeps."""
    path = runs / name / "complete"
    then = RunFolder.open(path).load_tensors(f"stage-1-{epoch}-outputs")[0]["target_logits"].softmax(1)
    pixels = tiny_task.target_test.images.pixels
    with faults.injected("old runs stay readable"):
        assert Predictor.load(path, epoch).probabilities(pixels).sub(then).abs().max() < 1e-5

    (tmp_path / "images").mkdir()
    for row, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(tmp_path / "images" / f"{row:02}.png")
    with faults.injected("old runs stay readable"):
        code, _, err = mutualign("predict", path, "images", "--out", "found.csv", "--epoch", epoch)
        assert (code, err) == (0, "")
        rows = list(csv.DictReader((tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()))
        assert [float(row["probability"]) for row in rows] == pytest.approx(then.max(1).values.tolist(), abs=1e-5)
        assert len({row["label"] for row in rows}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_exported_bit_for_bit(runs, mutualign, tmp_path, name, faults):
    path = runs / name / "complete"
    with faults.injected("old runs stay readable"):
        code, _, _ = mutualign("export", path, "--format", "safetensors", "--out", tmp_path / "model.safetensors")
        assert code == 0
        exported, about = unpack(tmp_path / "model.safetensors")
        weights, _ = RunFolder.open(path).load_tensors("stage-1-selected")
        assert exported.keys() == weights.keys()
        assert all(torch.equal(exported[key], weights[key]) for key in weights)
        assert json.loads(about["class_names"]) == ["left", "middle", "right"]


def test_a_comparison_takes_them_as_done(runs, tmp_path, faults):
    path = tmp_path / "tiny" / "pairs" / "seed-0"
    shutil.copytree(runs / "pairs" / "complete", path)
    recipe = RunSpec.of(RunFolder.open(path)).recipe
    with faults.injected("old runs stay readable"):
        rows = Comparison((recipe,), ("tiny",), (0,), tmp_path).run(
            lambda name: pytest.fail("trained again"), lambda rows: None
        )
        assert {row["recipe"] for row in rows} == {"pairs"}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_to_where_it_would_have_come_then(runs, mutualign, tmp_path, name, faults):
    path, whole = tmp_path / "run", runs / name / "complete"
    shutil.copytree(runs / name / "stopped", path)
    assert RunFolder.open(path).load_tensors("last")[1]["steps_done"] == 3
    with faults.injected("old runs stay readable"):
        code, _, err = mutualign("run", "--resume", path)
        assert (code, err) == (0, "")
        assert losses(path) == pytest.approx(losses(whole), rel=TOLERANCE)
        assert chosen_epochs(path) == chosen_epochs(whole)
        last = [RunFolder.open(run).load_tensors("last")[0] for run in (path, whole)]
        assert last[0].keys() == last[1].keys()
        for key, value in last[1].items():
            assert torch.allclose(last[0][key].float(), value.float(), rtol=1e-2, atol=1e-3), key


# Other formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("show", "RUN"),
        ("select", "RUN"),
        ("estimate", "RUN"),
        ("report", "RUN"),
        ("predict", "RUN", "one.png"),
        ("export", "RUN"),
        ("run", "--resume", "RUN"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_a_newer_format_and_says_what_to_do(mutualign, tmp_path, command, faults):
    config = tmp_path / "run" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'format = {FORMAT + 1}\ntask = "tiny"\n', encoding="utf-8")
    (tmp_path / "one.png").touch()
    before = sorted(config.parent.rglob("*"))
    with faults.injected("old runs stay readable"):
        code, out, err = mutualign(*("run" if word == "RUN" else word for word in command))
        assert (code, out) == (2, "")
        assert f"run has run-folder format {FORMAT + 1}, this mutualign reads formats up to {FORMAT}\n" in err
        assert "  do       use a newer mutualign" in err
        assert sorted(config.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("task = 'digits'", "no format"),
        ("format = '1'", "the format '1'"),
        ("format = 1.0", "the format 1.0"),
        ("format = true", "the format True"),
        ("format = 0", "the format 0"),
        ("format = -1", "the format -1"),
        ("format = [1]", r"the format \[1\]"),
    ],
)
def test_a_folder_without_a_format_or_with_nonsense_for_it_is_no_run(tmp_path, line, told, faults):
    (tmp_path / "config.toml").write_text(line, encoding="utf-8")
    message = rf"{tmp_path} is not a run folder: config\.toml has {told}, where a run's .*\n  do       restore"
    with faults.injected("old runs stay readable"), pytest.raises(MutualignError, match=message):
        RunFolder.open(tmp_path)
