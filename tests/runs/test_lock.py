"""The lock of a run folder: one process trains a run, others are told who does."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mutualign.errors import MutualignError
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.lock import LOCK, Owner, locked, owner_of
from tests.runs.samples import SPEC, config, recipe, untimed

ROOT = Path(__file__).parents[2]
HOLD = "import sys, time; from pathlib import Path; from mutualign.runs.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def test_a_second_process_is_refused_with_the_owner_and_a_killed_owner_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        message = (
            rf"held by  process {child.pid} on {socket.gethostname()} since 20\d\d-.*\n  hint: .*, delete {tmp_path}/"
        )
        with pytest.raises(MutualignError, match=message), locked(tmp_path):
            pass
        assert owner_of(tmp_path).pid == child.pid
    finally:
        child.kill()
        child.communicate()
    assert (tmp_path / LOCK).exists()  # stale
    assert owner_of(tmp_path) is None
    with locked(tmp_path):
        assert owner_of(tmp_path) == Owner(os.getpid(), socket.gethostname(), owner_of(tmp_path).since)
    assert not (tmp_path / LOCK).exists()


def test_one_of_many_that_want_a_lock_has_it_at_any_time(tmp_path):
    """The owner deletes the file when it leaves; whoever waits for the deleted file must not count as an owner."""
    inside, most, entered = 0, 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most, entered
        while entered < 60:
            try:
                with locked(tmp_path):
                    with guard:
                        inside, entered = inside + 1, entered + 1
                        most = max(most, inside)
                    time.sleep(0.0005)
                    with guard:
                        inside -= 1
            except MutualignError:
                continue

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered >= 60
    assert most == 1


def test_a_process_whose_lock_was_broken_leaves_that_of_its_successor(tmp_path):
    first = ExitStack()
    first.enter_context(locked(tmp_path))
    (tmp_path / LOCK).unlink()  # as the hint says, since the computer of the owner seems to be gone
    with locked(tmp_path):
        first.close()
        assert owner_of(tmp_path).pid == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept", encoding="utf-8")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(MutualignError, match="cannot be written"), locked(tmp_path):
        pass
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "kept"


def test_a_lock_that_cannot_be_written_is_released_so_that_the_same_process_can_try_again(tmp_path, monkeypatch):
    def full(file, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(MutualignError, match=r"No space left(.|\n)*free space there"), locked(tmp_path):
            pass
    with locked(tmp_path):
        assert owner_of(tmp_path).pid == os.getpid()


def test_who_trains_a_run_is_seen_by_those_who_may_only_read_its_folder(tmp_path, monkeypatch):
    opened, flags = os.open, []
    with locked(tmp_path):
        monkeypatch.setattr(os, "open", lambda path, flag, *mode: flags.append(flag) or opened(path, flag, *mode))
        assert owner_of(tmp_path).pid == os.getpid()
    assert flags
    assert not any(flag & (os.O_WRONLY | os.O_RDWR) for flag in flags)


def test_a_run_in_progress_is_neither_trained_nor_made_by_a_second_process(tmp_path, tiny_task):
    experiment = Experiment.start(recipe("dann"), tiny_task, 0, tmp_path / "run")
    before = sorted(path.name for path in experiment.folder.path.rglob("*"))
    with locked(experiment.folder.path), pytest.raises(MutualignError, match="in use by another process"):
        experiment.run()
    assert sorted(path.name for path in experiment.folder.path.rglob("*")) == before
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new"), pytest.raises(MutualignError, match="in use by another process"):
        RunFolder.create(tmp_path / "new", config(SPEC))


def test_a_run_that_another_process_completed_in_the_meantime_is_returned(copied, tiny_task, monkeypatch):
    """The result is looked for again once the lock is held."""
    done, looks = copied.result(), iter([None])
    monkeypatch.setattr(RunFolder, "result", lambda self: next(looks, done))
    monkeypatch.setattr(Experiment, "_run", lambda self: pytest.fail("trained again"))
    assert untimed(Experiment(recipe("dann", "mani"), tiny_task, 0, copied).run()) == untimed(done)
