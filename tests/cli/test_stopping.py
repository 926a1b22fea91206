"""Signals, and a disk that is full: an exit status, a sentence, and nothing lost."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
import torch

from mutualign.cli.stopping import AT_ONCE, OTHERS, StopSignal
from mutualign.io.atomic import cannot_write, write_atomically
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.folder import RunFolder
from tests.cli.conftest import IMAGES, SHORT
from tests.tiny_task import make_tiny_task

NUMBERS = {
    signal.SIGINT: 130,
    signal.SIGTERM: 143,
    signal.SIGHUP: 129,
    signal.SIGUSR1: 138,
    signal.SIGXCPU: 152,
}


@pytest.fixture(autouse=True)
def handlers():
    """Leave the handlers of signals as they were."""
    kept = {number: signal.getsignal(number) for number in (*AT_ONCE, *OTHERS)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def experiment(path, **settings) -> Experiment:
    recipe = load_recipe("dann", ["backbone=mlp", "stages.0.epochs=3", "stages.0.batch_size=10"])
    return Experiment.start(recipe, make_tiny_task(), 0, path, **settings)


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return run.checkpoints.load_weights(0, "last")[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    """A run that nothing stopped."""
    run = experiment(tmp_path_factory.mktemp("whole") / "tiny" / "dann" / "seed-0")
    run.run()
    return run.folder


@pytest.mark.parametrize("number", NUMBERS)
def test_each_signal_saves_and_ends_with_its_status_and_the_command_that_resumes_bit_for_bit(
    number, tmp_path, whole, capsys
):
    class Kill(Observer):
        def step(self, stage, done, total):
            if done == 7:  # in the middle of the second epoch
                os.kill(os.getpid(), number)

    stop = StopSignal()
    stopped = experiment(tmp_path / "tiny" / "dann" / "seed-0", observer=Kill(), should_stop=stop)
    with pytest.raises(SystemExit) as left, stop.saving("mutualign run --resume 'my run'"):
        stopped.run()
    assert left.value.code == NUMBERS[number]
    assert "stopped and saved; resume with: mutualign run --resume 'my run'" in capsys.readouterr().err
    folder = stopped.folder
    assert folder.result() is None
    assert folder.checkpoints.load_resumable().info["steps_done"] == 7
    Experiment(stopped.recipe, make_tiny_task(), 0, folder).run()
    assert all(
        torch.equal(one, other) for one, other in zip(weights(folder).values(), weights(whole).values(), strict=True)
    )
    assert [one.scores for one in folder.metrics()] == [one.scores for one in whole.metrics()]


def test_a_second_ctrl_c_or_term_stops_at_once_but_a_repeated_warning_does_not():
    stop = StopSignal()
    with stop.saving("command"):
        for number in (signal.SIGXCPU, signal.SIGXCPU, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert stop()
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGTERM)
        assert left.value.code == 143


def test_before_training_can_save_the_first_signal_stops_at_once():
    stop = StopSignal()
    for number, status in NUMBERS.items():
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), number)
        assert left.value.code == status
    assert not stop()


def test_between_two_trainings_a_signal_stops_at_once_and_one_from_the_first_stops_before_the_second(capsys):
    stop = StopSignal()
    with pytest.raises(SystemExit) as left, stop.saving("command"), stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.code == 143
    assert not stop()

    def load_twice():
        with stop.at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        with stop.at_once():
            pytest.fail("went on")

    with pytest.raises(SystemExit) as left, stop.saving("command"):
        load_twice()
    assert left.value.code == 143
    assert "resume with: command" in capsys.readouterr().err


def test_ctrl_c_stops_a_comparison_that_loads_its_images(mutualign, monkeypatch):
    def load(*_):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    monkeypatch.setattr("mutualign.runs.loading.load_task", load)
    assert mutualign("compare", "--recipes", "dann").code == 130


def test_a_hang_up_that_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopSignal()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop()


@pytest.mark.slow
def test_a_process_whose_terminal_is_closed_saves_and_can_be_resumed(here):
    command = [
        "run",
        "--recipe",
        "source_only",
        *IMAGES,
        "--out",
        "long",
        "--set",
        "backbone=mlp",
        "stages.0.epochs=2000",
    ]
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mutualign", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(terminal)
    deadline = time.monotonic() + 60
    while not (found := list(here.glob("long/*/*/*/metrics.jsonl"))) and time.monotonic() < deadline:
        if select.select([controller], [], [], 0.05)[0]:
            os.read(controller, 1 << 16)
    os.close(controller)  # the kernel sends SIGHUP
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    run = RunFolder.open(found[0].parent)
    assert run.checkpoints.load_resumable().info["steps_done"] >= len(run.metrics())


@pytest.mark.slow
def test_training_goes_on_when_the_reader_of_its_output_has_gone(here):
    shell = (
        f"{sys.executable} -m mutualign run --recipe source_only {' '.join([*IMAGES, *SHORT])} --out piped | head -1"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(here.glob("piped/*/*/*/result.json"))) == 1


def test_a_run_on_a_disk_that_takes_no_more_says_so_and_can_go_on_later(mutualign, refused, here, monkeypatch):
    def full(path, *_):
        if path.name == "last.safetensors":
            raise cannot_write(path, OSError(errno.ENOSPC, "No space left on device"))
        return write_atomically(path, *_)

    with monkeypatch.context() as patch:
        patch.setattr("mutualign.runs.checkpoints.write_atomically", full)
        message = refused("run", "--recipe", "source_only", *IMAGES, *SHORT, "--out", "full")
    assert "No space left on device" in message
    assert "free space" in message
    (config,) = here.glob("full/*/*/*/config.toml")
    run = RunFolder.open(config.parent)
    assert run.result() is None
    assert mutualign("run", "--resume", run.path).code == 0
    assert len(run.metrics()) == 2
    assert run.require_result()
