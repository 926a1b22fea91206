"""The run folder: what is written is complete or absent, and what cannot be read is named."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from contextlib import nullcontext, suppress

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.io.atomic import temporary_folder, write_atomically
from mutualign.runs.folder import FORMAT, RunFolder
from tests.runs.samples import SPEC, config, record, untimed


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "deep" / "run", config(SPEC))


def test_a_fault_names_the_file_that_has_its_traceback_unless_that_is_temporary(run):
    for context, notes in ((nullcontext(), [f"  details  {run.path / 'failure.txt'}"]), (temporary_folder(), None)):
        with context, pytest.raises(RuntimeError) as fault, run.recording_failure(except_for=KeyError):
            raise RuntimeError("a bug")
        assert getattr(fault.value, "__notes__", None) == notes
        assert "Traceback" in (run.path / "failure.txt").read_text()


# Atomic writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(MutualignError, match=r"cannot be written: No space left.*\n  hint:"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_is_flushed_to_disk_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real, **k: (calls.append(_n), _r(*a, **k))[1])
    write_atomically(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_temporary_folder_is_removed_and_only_its_files_are_not_flushed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with suppress(ZeroDivisionError), temporary_folder() as folder:
        write_atomically(folder / "file", b"content")
        assert (folder / "file").read_bytes() == b"content"
        1 / 0  # noqa: B018
    assert flushed == []
    assert not folder.exists()
    write_atomically(tmp_path / "file", b"content")
    assert len(flushed) == 2


# The folder -----------------------------------------------------------------------------------------------------------


def test_a_new_folder_holds_its_config_and_opens_again(run):
    opened = RunFolder.open(run.path)
    assert opened.config().run_spec == SPEC
    assert opened.config().format == FORMAT
    assert tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))["seed"] == 3
    assert (opened.result(), opened.metrics()) == (None, [])


def test_a_folder_that_holds_a_run_is_not_written_over(run):
    run.append_metrics(record())
    with pytest.raises(MutualignError, match=r"already holds a run\n.*--resume"):
        RunFolder.create(run.path, {"seed": 4})
    assert run.config().seed == 3
    assert run.metrics() == [record()]


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path):
    stray = tmp_path / "run" / "checkpoints" / "last.safetensors"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of an older run")
    with pytest.raises(MutualignError, match="files that do not belong to a run"):
        RunFolder.create(tmp_path / "run", {})
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["checkpoints", "last.safetensors"]


def test_a_folder_that_is_no_run_is_named_and_a_half_made_one_gets_advice(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    for name in ("other", "absent", "half"):
        with pytest.raises(MutualignError, match=f"{name} is not a run folder.*\n  hint: ") as caught:
            RunFolder.open(tmp_path / name)
        assert ("start it again" in str(caught.value)) == (name == "half") == RunFolder.is_half_made(tmp_path / name)


@pytest.mark.parametrize("content", [b"format = ", b"\xff\xfe\x00"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(MutualignError, match=r"config\.toml: cannot be read"):
        RunFolder.open(tmp_path)


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(MutualignError, match=r"cannot make the run folder .*file/run: .*(.|\n)*choose another"):
        RunFolder.create(tmp_path / "file" / "run", {})

    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(MutualignError, match=r"config.toml: cannot be written: Permission denied"):
        RunFolder.create(tmp_path / "run", {})


# Metrics --------------------------------------------------------------------------------------------------------------


def test_metrics_are_kept_in_order_and_in_full_precision(run):
    records = [record(epoch=1, means={"loss": 0.1 + 0.2}), record(epoch=2, means={"loss": 1e-30, "é": 1 / 3})]
    for one in records:
        run.append_metrics(one)
    assert RunFolder.open(run.path).metrics() == records


def test_a_last_line_that_a_kill_cut_off_is_ignored_and_dropped_by_a_resume(run):
    for epoch in (1, 2):
        run.append_metrics(record(epoch=epoch, means={"é": 1.0}))
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second + 1, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        assert [one.epoch for one in run.metrics()] == [1], end
    run.keep_metrics(lambda one: True)
    run.append_metrics(record(epoch=2))
    assert [one.epoch for one in run.metrics()] == [1, 2]


def test_records_of_epochs_that_will_be_trained_again_are_dropped(run):
    for stage in (0, 1):
        for epoch in (1, 2, 3):
            run.append_metrics(record(stage, epoch))
    kept = run.keep_metrics(lambda one: (one.stage, one.epoch) <= (1, 1))
    assert kept == run.metrics()
    assert [(one.stage, one.epoch) for one in kept] == [(0, 1), (0, 2), (0, 3), (1, 1)]


@pytest.mark.parametrize("places", [[(0, 2)], [(0, 1), (0, 3)], [(0, 1), (0, 1)], [(0, 1), (2, 1)], [(0, 1), (1, 2)]])
def test_missing_and_double_epochs_are_refused(run, places):
    for place in places:
        run.append_metrics(record(*place))
    with pytest.raises(
        MutualignError, match=rf"metrics\.jsonl, line {len(places)}: epoch \d of stage \d does not follow"
    ):
        run.metrics()


@pytest.mark.parametrize("lost", [slice(0), slice(-1), slice(2, None)], ids=["all", "the last", "the first stage"])
def test_the_records_of_a_complete_run_must_be_complete(copied, lost):
    path = copied.path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[lost]), encoding="utf-8")
    with pytest.raises(MutualignError, match=r"metrics\.jsonl"):
        copied.metrics()


# Results --------------------------------------------------------------------------------------------------------------


def test_a_result_is_read_as_it_was_written(copied):
    before, text = copied.result(), (copied.path / "result.json").read_text(encoding="utf-8")
    copied.write_result(before)
    assert copied.result() == before
    assert json.loads((copied.path / "result.json").read_text(encoding="utf-8")) == json.loads(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda result: result.update(seed=9), "seed: the result of another run: 9; config.toml has 0"),
        (lambda result: result.update(data="others"), "data: the result of another run"),
        (lambda result: result["stages"].pop(), "stages: the result of another run"),
        (lambda result: result["stages"][0].update(epochs="2"), r"stages\.0\.epochs"),
        (lambda result: result["stages"][1]["selections"].clear(), r"stages\.1: selections must contain last"),
        (lambda result: result.pop("hardware"), "hardware"),
    ],
)
def test_a_result_of_another_run_or_of_the_wrong_kind_is_refused_with_file_and_key(copied, change, message):
    path = copied.path / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    change(result)
    path.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(MutualignError, match=rf"result\.json.*{message}"):
        copied.result()


def test_a_run_without_result_is_refused_with_the_command_that_finishes_it(run):
    with pytest.raises(MutualignError, match="mutualign run --resume"):
        run.require_result()


def test_a_copied_run_folder_is_the_same_run(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "moved")
    moved = RunFolder.open(tmp_path / "moved")
    assert (moved.config(), moved.metrics()) == (whole.config(), whole.metrics())
    assert untimed(moved.result()) == untimed(whole.result())


# Tensors --------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_returns_type_shape_and_bits(run):
    tensors = {
        "float64": torch.randn(2, dtype=torch.float64),
        "bf16": torch.randn(5, dtype=torch.bfloat16),
        "int64": torch.tensor(2**62),
        "bool": torch.tensor([True, False]),
        "uint8": torch.arange(7, dtype=torch.uint8),
        "0-d": torch.tensor(-0.0),
        "empty": torch.zeros(0, 3),
        "extreme": torch.tensor([float("inf"), float("nan"), 1e-45]),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "a view": torch.arange(12).view(3, 4)[:, 1],
        "with a gradient": torch.randn(2, requires_grad=True),
    }

    def bits(tensor):
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    run.checkpoints.save("last", tensors, {"stage": 1, "steps_done": 7, "train_seconds": 0.1})
    found, info = RunFolder.open(run.path).checkpoints.load("last")
    assert info == {"stage": 1, "steps_done": 7, "train_seconds": 0.1}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(bits(found[name]), bits(tensor)), name


def test_a_checkpoint_that_is_cut_missing_or_foreign_is_named(run):
    from safetensors.torch import save

    run.checkpoints.save("last", {"w": torch.randn(20)}, {"stage": 0})
    path = run.path / "checkpoints" / "last.safetensors"
    whole = path.read_bytes()
    foreign = save({"w": torch.ones(1)})
    for broken in (b"", whole[:4], whole[:30], whole[:-1], b"\x00" * len(whole), b"pickled?" * 50, foreign):
        path.write_bytes(broken)
        with pytest.raises(MutualignError, match=r"last\.safetensors: not a readable checkpoint"):
            run.checkpoints.load("last")
    with pytest.raises(MutualignError, match=r"absent\.safetensors: not a readable checkpoint"):
        run.checkpoints.load("absent")
