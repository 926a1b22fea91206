"""The run folder: what is written is there whole or not at all, and what cannot be read is named."""

from __future__ import annotations

import json
import os
import tomllib

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.io.atomic import write_atomically
from mutualign.runs.folder import FORMAT, RunFolder

CONFIG = {"task": "digits", "seed": 3, "recipe": {"name": "mine", "stages": [{"method": "dann"}]}}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "deep" / "run", CONFIG)


# Atomic writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(MutualignError, match=r"cannot be written: No space left.*\n  do       free space"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_file_is_flushed_to_disk_before_it_takes_its_name_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, _n=name, _r=real: (calls.append(_n), _r(*arguments))[1])
    write_atomically(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(run, monkeypatch):
    run.save_tensors("last", {"w": torch.ones(2)}, {"steps_done": 1})

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(MutualignError, match=r"cannot be written: No space left.*\n  do       free space"):
            run.save_tensors("last", {"w": torch.zeros(2)}, {"steps_done": 2})
    tensors, info = run.load_tensors("last")
    assert tensors["w"].tolist() == [1, 1]
    assert info == {"steps_done": 1}


# The folder -----------------------------------------------------------------------------------------------------------


def test_a_new_folder_holds_its_config_and_opens_again(run):
    assert RunFolder.open(run.path).config() == {"format": FORMAT, **CONFIG}
    assert tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))["seed"] == 3
    assert run.result() is None
    assert run.metrics() == []
    assert not run.has_checkpoint("last")


def test_a_folder_that_holds_a_run_is_not_written_over(run):
    run.append_metrics({"epoch": 1})
    with pytest.raises(MutualignError, match=r"holds a run already\n.*--resume"):
        RunFolder.create(run.path, {"seed": 4})
    assert run.config()["seed"] == 3
    assert run.metrics() == [{"epoch": 1}]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MutualignError, match=f"{path} is not a run folder"):
            RunFolder.open(path)


@pytest.mark.parametrize("content", [b"format = ", b"\xff\xfe\x00"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, content, faults):
    (tmp_path / "config.toml").write_bytes(content)
    with faults.injected("parsers are total"), pytest.raises(MutualignError, match=r"config\.toml: cannot be read"):
        RunFolder.open(tmp_path)


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(MutualignError, match=r"cannot make the run folder .*file/run: .*choose another"):
        RunFolder.create(tmp_path / "file" / "run", CONFIG)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def fail(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(MutualignError, match=r"config.toml: cannot be written: Permission denied.*\n.* another place"):
        RunFolder.create(tmp_path / "run", CONFIG)


# Metrics and results --------------------------------------------------------------------------------------------------


def test_metrics_are_kept_in_their_order_and_in_full_precision(run):
    records = [
        {"stage": 0, "epoch": 1, "means": {"loss": 0.1 + 0.2}},
        {"stage": 0, "epoch": 2, "means": {"loss": 1e-30}},
    ]
    for record in records:
        run.append_metrics(record)
    assert RunFolder.open(run.path).metrics() == records


def test_a_last_line_that_a_kill_cut_off_is_left_out(run):
    for epoch in (1, 2):
        run.append_metrics({"epoch": epoch, "note": "é"})
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert run.metrics() == [{"epoch": 1, "note": "é"}], end


def test_after_a_cut_line_is_dropped_records_can_be_added(run):
    run.append_metrics({"epoch": 1})
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epo')
    run.keep_metrics(lambda record: True)
    run.append_metrics({"epoch": 2})
    assert run.metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_records_of_epochs_that_will_be_trained_again_are_dropped(run):
    for stage in (0, 1):
        for epoch in (1, 2, 3):
            run.append_metrics({"stage": stage, "epoch": epoch})
    run.keep_metrics(lambda record: (record["stage"], record["epoch"]) <= (1, 1))
    assert [(r["stage"], r["epoch"]) for r in run.metrics()] == [(0, 1), (0, 2), (0, 3), (1, 1)]


def test_a_result_is_read_back_and_a_broken_one_named(run):
    run.write_result({"stages": [{"target_accuracy": 0.5}]})
    assert run.result() == {"stages": [{"target_accuracy": 0.5}]}
    (run.path / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(MutualignError, match=r"result\.json: not JSON"):
        run.result()


# Checkpoints ----------------------------------------------------------------------------------------------------------


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def test_a_checkpoint_gives_back_type_shape_and_bits(run):
    tensors = {
        "float32": torch.randn(3, 4),
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
    run.save_tensors("last", tensors, {"stage": 1, "steps_done": 7, "train_seconds": 0.1})
    found, info = RunFolder.open(run.path).load_tensors("last")
    assert info == {"stage": 1, "steps_done": 7, "train_seconds": 0.1}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(bits(found[name]), bits(tensor)), name


def test_a_checkpoint_is_data_not_code(run):
    """The file is safetensors: the length of a JSON header, the header, and bytes."""
    run.save_tensors("last", {"w": torch.ones(2)}, {"stage": 0})
    content = (run.path / "checkpoints" / "last.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["w"]["shape"] == [2]
    assert json.loads(header["__metadata__"]["info"]) == {"stage": 0}


def test_a_corrupt_checkpoint_is_named_wherever_it_is_cut(run, faults):
    run.save_tensors("last", {"w": torch.randn(20)}, {"stage": 0})
    path = run.path / "checkpoints" / "last.safetensors"
    whole = path.read_bytes()
    for broken in (b"", whole[:4], whole[:30], whole[:-1], b"\x00" * len(whole), b"pickled?" * 50):
        path.write_bytes(broken)
        message = r"last\.safetensors: not a readable checkpoint"
        with faults.injected("corruption is found"), pytest.raises(MutualignError, match=message):
            run.load_tensors("last")


def test_a_checkpoint_that_is_not_there_or_not_ours_is_named(run):
    from safetensors.torch import save

    with pytest.raises(MutualignError, match=r"absent\.safetensors: not a readable checkpoint"):
        run.load_tensors("absent")
    (run.path / "checkpoints" / "foreign.safetensors").write_bytes(save({"w": torch.ones(1)}))
    with pytest.raises(MutualignError, match=r"foreign\.safetensors: not a readable checkpoint"):
        run.load_tensors("foreign")


def test_a_folder_with_files_of_something_else_is_refused_and_left_as_it_was(tmp_path):
    stray = tmp_path / "run" / "checkpoints" / "last.safetensors"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of an older run")
    with pytest.raises(MutualignError, match="holds files that are not a run's"):
        RunFolder.create(tmp_path / "run", {})
    assert stray.read_bytes() == b"of an older run"
    assert not (tmp_path / "run" / "config.toml").exists()
