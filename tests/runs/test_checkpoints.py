"""Checkpoints to resume from: the newest intact one is found, whatever happened to the others."""

from __future__ import annotations

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.folder import RunFolder
from mutualign.training.callbacks import CheckpointPolicy
from mutualign.training.loop import Stopped
from tests.run_contents import contents
from tests.runs.samples import SPEC, config, recipe


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", config(SPEC))


def save(run, *steps, keep=2):
    for step in steps:
        info = {"stage": 0, "steps_done": step, "train_seconds": 0.0}
        run.checkpoints.save_resumable({"w": torch.full((50,), float(step))}, info, keep)


def kept(run):
    """Steps of the checkpoints by name."""
    return {path.stem: run.checkpoints.load(path.stem)[1]["steps_done"] for path in run.checkpoints.path.iterdir()}


def checkpoint(run, name):
    return run.checkpoints.path / f"{name}.safetensors"


def test_the_newest_are_kept_and_older_ones_are_deleted(run):
    save(run, 1, 2, 3, 4, 5, keep=3)
    assert kept(run) == {"last": 5, "last-1": 4, "last-2": 3}
    save(run, 6, keep=2)
    assert kept(run) == {"last": 6, "last-1": 5}
    save(run, 7, keep=1)
    assert kept(run) == {"last": 7}


def test_there_is_nothing_to_resume_from_before_the_first_checkpoint(run):
    run.checkpoints.save("stage-0-last", {"w": torch.ones(1)}, {})
    assert run.checkpoints.load_resumable() is None


@pytest.mark.parametrize("content", [b"", b"\0" * 400, None], ids=["empty", "zeros", "a flipped bit"])
def test_damaged_checkpoints_are_named_and_set_aside_for_the_one_before(run, content):
    save(run, 1, 2, 3, keep=3)
    for name in ("last", "last-1"):
        whole = checkpoint(run, name).read_bytes()
        checkpoint(run, name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if content is None else content)
    found = run.checkpoints.load_resumable()
    assert found.info["steps_done"] == 1
    assert found.tensors["w"].eq(1).all()
    assert [fault.partition(":")[0] for fault in found.damaged] == [str(checkpoint(run, n)) for n in ("last", "last-1")]
    assert run.checkpoints.load_resumable().damaged == []  # reported once
    names = {path.name for path in run.checkpoints.path.iterdir()}
    assert names == {"last.damaged", "last-1.damaged", "last-2.safetensors"}
    save(run, 4, keep=3)  # the damaged ones do not push out the intact one
    assert run.checkpoints.load_resumable().info["steps_done"] == 4


def test_if_all_are_damaged_each_is_named_and_none_is_touched(run):
    save(run, 1, 2)
    for name in ("last", "last-1"):
        checkpoint(run, name).write_bytes(b"noise")
    message = r"no intact checkpoint to resume from\n.*last\.safetensors.*\n.*last-1\.safetensors.*\n  hint:"
    with pytest.raises(MutualignError, match=message):
        run.checkpoints.load_resumable()
    assert checkpoint(run, "last").exists()


def test_a_kill_between_the_two_renames_leaves_the_one_before(run):
    save(run, 1, 2)
    checkpoint(run, "last").replace(checkpoint(run, "last-1"))
    found = run.checkpoints.load_resumable()
    assert (found.info["steps_done"], found.damaged) == (2, [])
    save(run, 3)
    assert kept(run) == {"last": 3, "last-1": 2}


@pytest.mark.parametrize(("every", "keep"), [(60.0, 0), (-1.0, 2), (float("nan"), 2)])
def test_a_policy_that_makes_no_sense_is_refused(every, keep):
    with pytest.raises(MutualignError, match="keep must be 1 or more"):
        CheckpointPolicy(every, keep)


# A run that falls back ------------------------------------------------------------------------------------------------


class Faults(Observer):
    def __init__(self):
        self.shown = []

    def damaged(self, fault):
        self.shown.append(fault)


def stopped_at(step, path, task):
    steps = iter(range(1, 100))
    stopped = Experiment.start(recipe("dann", "mani"), task, 0, path, should_stop=lambda: next(steps) == step)
    with pytest.raises(Stopped):
        stopped.run()
    return stopped.folder


@pytest.mark.parametrize("stop", [4, 11])  # within the second epoch of either stage; an epoch has three steps
def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_nothing_had_happened(tmp_path, whole, tiny_task, stop):
    run, faults = stopped_at(stop, tmp_path / "run", tiny_task), Faults()
    checkpoint(run, "last").write_bytes(checkpoint(run, "last").read_bytes()[:-3])
    Experiment(recipe("dann", "mani"), tiny_task, 0, run, observer=faults).run()
    (fault,) = faults.shown
    assert "last.safetensors: not a readable checkpoint" in fault
    assert contents(run) == contents(whole)


def test_damaged_weights_of_a_finished_stage_are_named_and_not_used(tmp_path, tiny_task):
    run = stopped_at(11, tmp_path / "run", tiny_task)
    content = bytearray(checkpoint(run, "stage-0-last").read_bytes())
    content[-10] ^= 4
    checkpoint(run, "stage-0-last").write_bytes(content)
    with pytest.raises(MutualignError, match=r"stage-0-last\.safetensors"):
        Experiment(recipe("dann", "mani"), tiny_task, 0, run).run()
    assert run.result() is None
