"""Checkpoints that a resume begins at: the newest good one is found, however the others were broken."""

from __future__ import annotations

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.recipes import Recipe, Stage
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.folder import RunFolder
from mutualign.training.callbacks import CheckpointPolicy
from mutualign.training.loop import Stopped


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {})


def save(run, *steps, keep=2):
    for step in steps:
        run.save_resumable({"w": torch.full((50,), float(step))}, {"steps_done": step}, keep)


def kept(run):
    """Steps of the checkpoints by name."""
    return {path.stem: run.load_tensors(path.stem)[1]["steps_done"] for path in (run.path / "checkpoints").iterdir()}


def checkpoint(run, name):
    return run.path / "checkpoints" / f"{name}.safetensors"


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(1, {"last": 5}), (2, {"last": 5, "last-1": 4}), (3, {"last": 5, "last-1": 4, "last-2": 3})],
)
def test_the_newest_are_kept_and_older_ones_go(run, keep, expected):
    save(run, 1, 2, 3, 4, 5, keep=keep)
    assert kept(run) == expected


def test_fewer_are_kept_from_now_on_if_asked_to(run):
    save(run, 1, 2, 3, 4, keep=4)
    save(run, 5, keep=2)
    assert kept(run) == {"last": 5, "last-1": 4}


def test_before_the_first_there_is_nothing_to_go_on_from(run):
    run.save_tensors("stage-0-last", {"w": torch.ones(1)}, {})
    assert run.load_resumable() is None


@pytest.mark.parametrize("content", [b"", b"\0" * 400, None], ids=["empty", "zeros", "a flipped bit"])
def test_a_damaged_checkpoint_is_named_and_set_aside_for_the_one_before(run, content, faults):
    save(run, 1, 2, 3, keep=3)
    for name in ("last", "last-1"):
        whole = checkpoint(run, name).read_bytes()
        checkpoint(run, name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if content is None else content)
    with faults.injected("corruption is found", 2):
        tensors, info, told = run.load_resumable()
        assert info == {"steps_done": 1}
        assert tensors["w"].eq(1).all()
        assert [fault.partition(":")[0] for fault in told] == [str(checkpoint(run, n)) for n in ("last", "last-1")]
    assert run.load_resumable()[2] == []  # told once
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {
        "last.damaged",
        "last-1.damaged",
        "last-2.safetensors",
    }
    save(run, 4, keep=3)  # the damaged ones do not push out the good one
    assert run.load_resumable()[1] == {"steps_done": 4}


def test_where_all_are_damaged_every_one_is_named_and_nothing_is_touched(run, faults):
    save(run, 1, 2)
    for name in ("last", "last-1"):
        checkpoint(run, name).write_bytes(b"noise")
    message = r"no checkpoint is left to go on from\n.*last\.safetensors.*\n.*last-1\.safetensors.*\n  do       begin"
    with faults.injected("corruption is found", 2), pytest.raises(MutualignError, match=message):
        run.load_resumable()
    assert checkpoint(run, "last").exists()


def test_a_kill_between_the_two_renames_leaves_the_one_before(run):
    save(run, 1, 2)
    checkpoint(run, "last").replace(checkpoint(run, "last-1"))
    assert run.load_resumable()[1:] == ({"steps_done": 2}, [])
    save(run, 3)
    assert kept(run) == {"last": 3, "last-1": 2}


def test_settings_that_make_no_sense_are_refused():
    for every, keep in ((60.0, 0), (-1.0, 2), (float("nan"), 2)):
        with pytest.raises(MutualignError, match="1 or more are kept, every 0 or more seconds"):
            CheckpointPolicy(every, keep)


# A run that falls back ------------------------------------------------------------------------------------------------


class Told(Observer):
    def __init__(self):
        self.faults, self.epochs = [], []

    def damaged(self, fault):
        self.faults.append(fault)

    def epoch(self, record):
        self.epochs.append(record["epoch"])


RECIPE = Recipe(
    "mine", "", tuple(Stage(name, epochs=3, batch_size=20) for name in ("dann", "mani")), precision="float32"
)


@pytest.mark.parametrize("stop", [5, 9, 11, 17])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_nothing_had_happened(tmp_path, tiny_task, stop, faults):
    whole = Experiment.start(RECIPE, tiny_task, 0, tmp_path / "whole")
    whole.run()
    steps = iter(range(1, 100))
    stopped = Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run", should_stop=lambda: next(steps) == stop)
    with pytest.raises(Stopped):
        stopped.run()
    path = checkpoint(stopped.folder, "last")
    path.write_bytes(path.read_bytes()[:-3])
    told = Told()
    resumed = Experiment(RECIPE, tiny_task, 0, RunFolder.open(tmp_path / "run"), display=told)
    with faults.injected("corruption is found"):
        resumed.run()
        (fault,) = told.faults
        assert "last.safetensors: not a readable checkpoint" in fault
        names = ["last", *(f"stage-{s}-{w}" for s in (0, 1) for w in ("last", "selected", "last-outputs"))]
        for name in names:
            found, expected = (e.folder.load_tensors(name)[0] for e in (resumed, whole))
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in expected), name

        def numbers(experiment):
            return [{**record, "train_seconds": 0} for record in experiment.folder.metrics()]

        assert numbers(resumed) == numbers(whole)


def test_damaged_weights_of_a_stage_are_named_and_not_used(tmp_path, tiny_task, faults):
    steps = iter(range(1, 100))
    stopped = Experiment.start(RECIPE, tiny_task, 0, tmp_path / "run", should_stop=lambda: next(steps) == 15)
    with pytest.raises(Stopped):
        stopped.run()
    path = checkpoint(stopped.folder, "stage-0-selected")
    whole = bytearray(path.read_bytes())
    whole[-10] ^= 4
    path.write_bytes(whole)
    resumed = Experiment(RECIPE, tiny_task, 0, RunFolder.open(tmp_path / "run"))
    with faults.injected("corruption is found"), pytest.raises(MutualignError, match=r"stage-0-selected\.safetensors"):
        resumed.run()
    assert resumed.folder.result() is None
