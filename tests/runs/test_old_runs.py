"""Run folders of earlier versions: every command reads them, stopped ones resume, newer formats are refused."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from mutualign.data.datasets.registry import TASKS, TaskEntry
from mutualign.errors import MutualignError
from mutualign.io.tensors import unpack
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import Comparison
from mutualign.runs.folder import FORMAT, RunFolder
from mutualign.runs.predictor import Predictor
from tests.cli.conftest import call
from tests.runs.samples import chosen
from tests.tiny_task import make_tiny_task

# Each is made by make.py next to it, by the version in its name; 9bf8c3a wrote no SHA-256 into checkpoints.
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
    """Call the command line, which knows the tiny task; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setitem(TASKS, "tiny", TaskEntry("tiny", "of tests", (), lambda folder: make_tiny_task()))
    return lambda *arguments: (call(*map(str, arguments)), *capsys.readouterr())


def losses(path):
    """The mean losses of every epoch, by stage, epoch and name."""
    records = RunFolder.open(path).metrics()
    return {(one.stage, one.epoch, key): one.means[key] for one in records for key in one.means if "loss" in key}


def test_there_is_an_archive_of_every_format_with_and_without_a_sha256():
    assert {int(path.name.split("-")[1]) for path in ARCHIVES} == set(range(1, FORMAT + 1))
    assert {"format-1-9bf8c3a.tar.xz", "format-1-5f9e706.tar.xz"} <= {path.name for path in ARCHIVES}
    assert sum(path.stat().st_size for path in ARCHIVES) < 350_000


def test_a_complete_run_is_read_by_every_command(runs, mutualign, tmp_path):
    both = [runs / name / "complete" for name in NAMES]
    for name, path in zip(NAMES, both, strict=True):
        folder = RunFolder.open(path)
        spec = folder.config().run_spec
        assert (spec.recipe.name, spec.task, spec.seed) == (name, "tiny", 0)
        assert [stage.epochs for stage in folder.result().stages] == [2, 2]
        code, out, _ = mutualign("show", path)
        assert code == 0
        assert spec.recipe.stages[1].method in out
    code, out, _ = mutualign("select", *both, runs / "views" / "stopped")
    assert code == 0
    assert str(both[0]) in out
    code, out, _ = mutualign("estimate", *both)
    assert code == 0
    assert all(name in out for name in NAMES)
    assert mutualign("run", "--resume", both[0])[0] == 0  # nothing is left to do
    assert mutualign("report", both[1], "--out", tmp_path / "report.html")[0] == 0
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_predicts_and_exports_what_it_was(runs, mutualign, tmp_path, tiny_task, name):
    """The run kept the logits of all target test images, in their order: twenty are fewer than the most it keeps."""
    path, pixels = runs / name / "complete", tiny_task.target_test.images.pixels
    for which in ("selected", "last"):
        outputs, _ = RunFolder.open(path).checkpoints.load_outputs(1, which)
        then = outputs["target_logits"].softmax(1)
        assert Predictor.load(path, which).probabilities(pixels).sub(then).abs().max() < 1e-5

    (tmp_path / "images").mkdir()
    for row, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(tmp_path / "images" / f"{row:02}.png")
    assert mutualign("predict", path, "images", "--out", "found.csv", "--epoch", "last")[0] == 0
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["probability"]) for row in rows] == pytest.approx(then.max(1).values.tolist(), abs=1e-5)
    assert len({row["label"] for row in rows}) > 1

    assert mutualign("export", path, "--format", "safetensors", "--out", tmp_path / "model.safetensors")[0] == 0
    exported, about = unpack(tmp_path / "model.safetensors")
    weights, _ = RunFolder.open(path).checkpoints.load_weights(1, "selected")
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)
    assert json.loads(about["class_names"]) == ["left", "middle", "right"]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_stands_for_its_recipe(runs, name):
    path = runs / name / "complete"
    assert load_recipe(str(path / "config.toml")) == RunFolder.open(path).config().recipe


def test_a_comparison_takes_an_old_run_as_done(runs, tmp_path):
    path = tmp_path / "tiny" / "pairs" / "seed-0"
    shutil.copytree(runs / "pairs" / "complete", path)
    recipe = RunFolder.open(path).config().recipe
    rows = Comparison((recipe,), ("tiny",), (0,), tmp_path).run(lambda name: pytest.fail("trained again"))
    assert {row.recipe for row in rows} == {"pairs"}


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_resumes_to_where_it_would_have_come_then(runs, mutualign, tmp_path, name):
    path, whole = tmp_path / "run", runs / name / "complete"
    shutil.copytree(runs / name / "stopped", path)
    assert RunFolder.open(path).checkpoints.load("last")[1]["steps_done"] == 3
    assert mutualign("run", "--resume", path)[0] == 0
    assert losses(path) == pytest.approx(losses(whole), rel=TOLERANCE)
    runs_now = [RunFolder.open(each) for each in (path, whole)]
    epochs = [{way: epoch for way, (epoch, _) in chosen(run.result().stages[-1]).items()} for run in runs_now]
    assert epochs[0] == epochs[1]
    now, then = (run.checkpoints.load_resumable().tensors for run in runs_now)
    assert now.keys() == then.keys()
    for key, value in then.items():
        assert torch.allclose(now[key].float(), value.float(), rtol=1e-2, atol=1e-3), key
    assert runs_now[0].config().format == FORMAT  # what was added to it cannot be read by older versions


# Other formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        *(("show", "RUN"), ("select", "RUN"), ("estimate", "RUN"), ("report", "RUN")),
        *(("predict", "RUN", "one.png"), ("export", "RUN"), ("run", "--resume", "RUN")),
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_a_newer_format_with_a_hint(mutualign, tmp_path, command):
    config = tmp_path / "run" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'format = {FORMAT + 1}\ntask = "tiny"\n', encoding="utf-8")
    (tmp_path / "one.png").touch()
    code, out, err = mutualign(*("run" if word == "RUN" else word for word in command))
    assert (code, out) == (2, "")
    assert f"run has run-folder format {FORMAT + 1}; this version of mutualign reads formats up to {FORMAT}\n" in err
    assert "  hint:    pip install --upgrade mutualign" in err
    assert sorted(config.parent.rglob("*")) == [config]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("task = 'digits'", "no format"),
        ("format = '1'", "the format '1'"),
        ("format = true", "the format True"),
        ("format = 0", "the format 0"),
        ("format = [1]", r"the format \[1\]"),
    ],
)
def test_a_folder_without_a_sensible_format_is_no_run(tmp_path, line, shown):
    (tmp_path / "config.toml").write_text(line, encoding="utf-8")
    with pytest.raises(MutualignError, match=rf"{tmp_path} is not a run folder: config\.toml has {shown}; .*\n  hint:"):
        RunFolder.open(tmp_path)
