"""SIGKILL, full disks, folders that cannot be written: what was saved before is there, and training goes on from it."""

from __future__ import annotations

import io
import multiprocessing
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
from mutualign.recipes import Recipe, Stage
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.training.callbacks import CheckpointPolicy
from tests.conftest import make_tiny_task

# Children are forked from a process that has torch loaded and nothing running.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "beartype", "mutualign.runs.experiment"])
KILLS, ROUNDS = 90, 12  # of a writer; of a training run, which may be over before the last
REFUSED = 7  # the exit status of a child whose write was refused as it should be
RECIPE = Recipe(
    "mine", "", tuple(Stage(name, epochs=4, batch_size=10) for name in ("dann", "mani")), precision="float32"
)


def start(target, *arguments):
    child = CONTEXT.Process(target=target, args=arguments)
    child.start()
    return child


def finish(child):
    """The exit status of a child that ends by itself."""
    child.join(60)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


def save(run, step, keep=3):
    run.save_resumable({"w": torch.full((20_000,), float(step))}, {"steps_done": step}, keep)


def newest(path):
    """The step of the checkpoint that a resume would begin at, after a look at its tensors."""
    tensors, info, faults = RunFolder(path).load_resumable()
    assert faults == []
    assert tensors["w"].eq(info["steps_done"]).all()
    return info["steps_done"]


# Killed while writing -------------------------------------------------------------------------------------------------


def write_for_ever(path, saved):
    run, step = RunFolder(path), saved.value
    while True:
        step += 1
        save(run, step)
        saved.value = step


@pytest.mark.slow
def test_a_writer_killed_at_any_time_leaves_what_it_had_saved(tmp_path, faults):
    path = RunFolder.create(tmp_path / "run", {}).path
    saved = CONTEXT.Value("q", 0)
    delays = torch.rand(KILLS, generator=torch.Generator().manual_seed(0)).mul(0.03).tolist()
    for delay in delays:
        before = saved.value
        child = start(write_for_ever, path, saved)
        deadline = time.monotonic() + 60
        while saved.value == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        child.kill()
        child.join()
        with faults.injected("killed at any moment"):
            assert saved.value > before
            assert newest(path) in (saved.value, saved.value + 1)  # on disk, or told to be
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
        File(file, "w") if mode == "wb" else real_open(file, mode, *rest, **more)
    )
    save(RunFolder(path), step, keep=3)  # of the four that are there: one is pruned
    os._exit(0)


def test_a_kill_at_every_point_of_the_writer_leaves_a_whole_checkpoint(tmp_path, faults):
    found = []
    for point in range(100):
        run = RunFolder.create(tmp_path / f"run-{point}", {})
        for step in (1, 2, 3, 4):
            save(run, step, keep=4)
        status = finish(start(save_and_die, run.path, 5, point))
        if status == 0:
            break  # there are no more points
        assert status == -signal.SIGKILL
        with faults.injected("killed at any moment"):
            found.append(newest(run.path))
            save(run, 6)  # and what the kill left behind is in nobody's way
            assert newest(run.path) == 6
    # Write, fsync, three renames, fsync of the folder, prune: before and after each. The last rename makes it the 5th.
    assert found == 9 * [4] + 5 * [5]


# Killed while training ------------------------------------------------------------------------------------------------


def train(path):
    torch.set_num_threads(1)
    saving = CheckpointPolicy(every=0.0)
    task = make_tiny_task()
    if (path / "config.toml").exists():
        Experiment(RECIPE, task, 0, RunFolder.open(path), saving=saving).run()
    else:
        Experiment.start(RECIPE, task, 0, path, saving=saving).run()


def saved_at(path):
    """When the newest checkpoint was written: the run that is killed must have got further than the one before it."""
    return max((file.stat().st_mtime_ns for file in path.glob("checkpoints/last-1.safetensors")), default=0)


def numbers(run):
    return [{**record, "train_seconds": 0} for record in run.metrics()]


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_bit_for_bit_as_one_that_was_not(tmp_path, faults):
    assert finish(start(train, tmp_path / "whole")) == 0
    path = tmp_path / "run"
    delays = torch.rand(ROUNDS, generator=torch.Generator().manual_seed(1)).mul(0.3).tolist()
    killed = 0
    for delay in delays:
        before, deadline = saved_at(path), time.monotonic() + 60
        child = start(train, path)
        while child.is_alive() and saved_at(path) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(delay)
        if not child.is_alive():
            break
        child.kill()
        child.join()
        killed += 1
    assert killed >= 5
    with faults.injected("killed at any moment", killed):
        assert finish(start(train, path)) == 0
        whole, run = RunFolder(tmp_path / "whole"), RunFolder(path)
        for name in ("last", "stage-0-selected", "stage-1-selected", "stage-1-last", "stage-1-selected-outputs"):
            expected, found = whole.load_tensors(name)[0], run.load_tensors(name)[0]
            assert expected.keys() == found.keys()
            assert all(torch.equal(expected[key], found[key]) for key in expected), name
        assert numbers(run) == numbers(whole)
        chosen = [[stage["selections"] for stage in r.result()["stages"]] for r in (run, whole)]
        assert chosen[0] == chosen[1]


# A disk that takes no more --------------------------------------------------------------------------------------------


def save_with_a_small_limit(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    refused_save(path)


def refused_save(path):
    try:
        save(RunFolder(path), 2)
    except MutualignError as error:
        if "cannot be written" in str(error) and "\n  do " in str(error):
            os._exit(REFUSED)
    os._exit(1)


def test_a_limit_on_the_size_of_files_is_told_and_the_old_checkpoint_stays(tmp_path, faults):
    run = RunFolder.create(tmp_path / "run", {})
    save(run, 1)
    with faults.injected("disk full, read-only, no permission"):
        assert finish(start(save_with_a_small_limit, run.path)) == REFUSED
        assert newest(run.path) == 1
        assert not list(run.path.rglob("*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_told_and_the_old_checkpoint_stays(tmp_path, faults):
    run = RunFolder.create(tmp_path / "run", {})
    save(run, 1)
    run.append_metrics({"epoch": 1})
    full = run.path / "checkpoints" / "last.safetensors.part"
    full.symlink_to("/dev/full")
    with (
        faults.injected("disk full, read-only, no permission"),
        pytest.raises(
            MutualignError, match=r"No space left on device; nothing .* is lost\n  do       free space there"
        ),
    ):
        save(run, 2)
    assert newest(run.path) == 1
    assert not full.is_symlink()
    records = (run.path / "metrics.jsonl").rename(run.path / "kept")
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with (
        faults.injected("disk full, read-only, no permission"),
        pytest.raises(MutualignError, match=r"metrics\.jsonl: cannot be written: No space left on device"),
    ):
        run.append_metrics({"epoch": 2})
    assert records.read_text() == '{"epoch": 1}\n'


def as_nobody(path):
    if os.geteuid() == 0:
        os.setuid(65534)  # no permission stops root
    refused_save(path)


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "no permission"])
def test_a_folder_that_cannot_be_written_is_told_and_the_old_checkpoint_stays(mode, faults):
    root = Path(tempfile.mkdtemp())
    try:
        run = RunFolder.create(root / "run", {})
        save(run, 1)
        root.chmod(0o755)
        (run.path / "checkpoints").chmod(mode)
        with faults.injected("disk full, read-only, no permission"):
            assert finish(start(as_nobody, run.path)) == REFUSED
            (run.path / "checkpoints").chmod(0o755)
            assert newest(run.path) == 1
            assert not list(run.path.rglob("*.part"))
    finally:
        for folder in (root / "run" / "checkpoints", root):
            folder.chmod(0o755)
        shutil.rmtree(root)
