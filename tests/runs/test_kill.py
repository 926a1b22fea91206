"""SIGKILL, full disks, read-only folders: what was saved before is intact, and training resumes from it."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.observer import Observer
from mutualign.training.callbacks import CheckpointPolicy
from tests.children import CONTEXT, finish, start
from tests.run_contents import contents
from tests.runs.samples import SPEC, config, recipe, record
from tests.tiny_task import make_tiny_task

KILLS, ROUNDS = 20, 6  # of a writer; of a training run
REFUSED = 7  # the exit status of a child whose write was refused as it should be
RECIPE = recipe("dann", "mani", epochs=3, batch_size=10)


def save(run, step, keep=3):
    info = {"stage": 0, "steps_done": step, "train_seconds": 0.0}
    run.checkpoints.save_resumable({"w": torch.full((20_000,), float(step))}, info, keep)


def newest(path):
    """The step of the checkpoint that a resume starts from, after a look at its tensors."""
    found = RunFolder(path).checkpoints.load_resumable()
    assert found.damaged == []
    assert found.tensors["w"].eq(found.info["steps_done"]).all()
    return found.info["steps_done"]


# Killed while writing -------------------------------------------------------------------------------------------------


def write_for_ever(path, saved):
    run, step = RunFolder(path), saved.value
    while True:
        step += 1
        save(run, step)
        saved.value = step


def test_a_writer_killed_at_any_time_leaves_what_it_had_saved(tmp_path):
    path = RunFolder.create(tmp_path / "run", config(SPEC)).path
    saved = CONTEXT.Value("q", 0)
    for delay in torch.rand(KILLS, generator=torch.Generator().manual_seed(0)).mul(0.03).tolist():
        before = saved.value
        child = start(write_for_ever, path, saved)
        deadline = time.monotonic() + 60
        while saved.value == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        child.kill()
        child.join()
        assert saved.value > before
        assert newest(path) in (saved.value, saved.value + 1)  # the last may be on disk before it is counted
        saved.value = newest(path)


class Fatal:
    """Kills the process at the n-th call of anything that writes: before it, or after it; a write, in its middle."""

    def __init__(self, point):
        self.left, self.after = divmod(point, 2)

    def wrap(self, call):
        def wrapped(*arguments, **options):
            if self.left == 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return result

        return wrapped

    def write(self, file, content):
        if self.left == 0:
            file.write(content[: len(content) // 2] if not self.after else content)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return file.write(content)


def save_and_die(path, step, point):
    fatal = Fatal(point)

    class File(io.FileIO):
        def write(self, content):
            return fatal.write(super(), content)

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, fatal.wrap(getattr(os, name)))
    real_open = io.open
    io.open = lambda file, mode="r", *rest, **more: (
        File(file, mode[0]) if mode in ("wb", "xb") else real_open(file, mode, *rest, **more)
    )
    save(RunFolder(path), step, keep=3)  # of the four that are there: one is pruned
    os._exit(0)


def test_a_kill_at_every_point_of_the_writer_leaves_an_intact_checkpoint(tmp_path):
    found = []
    for point in range(100):
        run = RunFolder.create(tmp_path / f"run-{point}", config(SPEC))
        for step in (1, 2, 3, 4):
            save(run, step, keep=4)
        status = finish(start(save_and_die, run.path, 5, point))
        if status == 0:
            break  # there are no more points
        assert status == -signal.SIGKILL
        found.append(newest(run.path))
        save(run, 6)  # what the kill left behind is in nobody's way
        assert newest(run.path) == 6
    # Write, fsync, three renames, fsync of the folder, prune: before and after each. The last rename makes it the 5th.
    assert found == 9 * [4] + 5 * [5]


# Killed while training ------------------------------------------------------------------------------------------------


class Paced(Observer):
    """Lets a run train some steps, and then wait to be killed; 0 never waits."""

    def __init__(self, steps):
        self.left = steps

    def step(self, stage, done, total):
        self.left -= 1
        if not self.left:
            time.sleep(60)


def train(path, wait_after=0):
    torch.set_num_threads(1)
    settings = {"policy": CheckpointPolicy(every=0.0), "observer": Paced(wait_after)}
    if (path / "config.toml").exists():
        Experiment(RECIPE, make_tiny_task(), 0, RunFolder.open(path), **settings).run()
    else:
        Experiment.start(RECIPE, make_tiny_task(), 0, path, **settings).run()


def saved_at(path):
    """When the newest checkpoint but one was written: the run that is killed must have got further than it."""
    return max((file.stat().st_mtime_ns for file in path.glob("checkpoints/last-1.safetensors")), default=0)


def test_a_run_killed_again_and_again_ends_bit_for_bit_like_one_that_was_not(tmp_path):
    train(tmp_path / "whole")
    path, steps = tmp_path / "run", 30  # in all: no round of a sixth of them comes to the end
    for delay in torch.rand(ROUNDS, generator=torch.Generator().manual_seed(1)).mul(0.15).tolist():
        before, deadline = saved_at(path), time.monotonic() + 60
        child = start(train, path, steps // ROUNDS)
        while child.is_alive() and saved_at(path) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(delay)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert saved_at(path) > before
    assert finish(start(train, path)) == 0
    assert contents(RunFolder(path)) == contents(RunFolder(tmp_path / "whole"))


# A disk that takes no more --------------------------------------------------------------------------------------------


def save_with_a_small_limit(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    refused_save(path)


def refused_save(path):
    try:
        save(RunFolder(path), 2)
    except MutualignError as error:
        if "cannot be written" in str(error) and "\n  hint:" in str(error):
            os._exit(REFUSED)
    os._exit(1)


def test_a_limit_on_file_sizes_is_reported_and_the_old_checkpoint_stays(tmp_path):
    run = RunFolder.create(tmp_path / "run", config(SPEC))
    save(run, 1)
    assert finish(start(save_with_a_small_limit, run.path)) == REFUSED
    assert newest(run.path) == 1
    assert not list(run.path.rglob("*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_reported_and_the_old_records_stay(tmp_path):
    run = RunFolder.create(tmp_path / "run", config(SPEC))
    run.append_metrics(record())
    kept = (run.path / "metrics.jsonl").rename(run.path / "kept")
    before = kept.read_text(encoding="utf-8")
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(MutualignError, match=r"metrics\.jsonl: cannot be written: No space left on device"):
        run.append_metrics(record(epoch=2))
    assert kept.read_text(encoding="utf-8") == before


def as_nobody(path):
    if os.geteuid() == 0:
        os.setuid(65534)  # no permission stops root
    refused_save(path)


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "no permission"])
def test_a_folder_that_cannot_be_written_is_reported_and_the_old_checkpoint_stays(mode):
    root = Path(tempfile.mkdtemp())
    try:
        run = RunFolder.create(root / "run", config(SPEC))
        save(run, 1)
        root.chmod(0o755)
        run.checkpoints.path.chmod(mode)
        assert finish(start(as_nobody, run.path)) == REFUSED
        run.checkpoints.path.chmod(0o755)
        assert newest(run.path) == 1
        assert not list(run.path.rglob("*.part"))
    finally:
        for folder in (root / "run" / "checkpoints", root):
            folder.chmod(0o755)
        shutil.rmtree(root)
