"""Signals and full disks by the command line: an exit status, a sentence, and nothing lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

from mutualign.cli.app import main
from mutualign.cli.options import StopSignal
from mutualign.runs.folder import RunFolder
from mutualign.training.loop import Stopped


@pytest.fixture
def handlers():
    """Leaves the handlers of signals as they were."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_to_stop_and_the_second_stops_at_once(number, status, faults):
    stop = StopSignal()
    with faults.injected("stopped by a signal", 2):
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGTERM)
        assert left.value.code == 143


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_exits_with_the_signals_status_and_the_command_to_go_on(number, status, faults, capsys):
    stop = StopSignal()
    assert not stop()
    with faults.injected("stopped by a signal"):
        os.kill(os.getpid(), number)
        with pytest.raises(SystemExit) as left, stop.leaving("mutualign run --resume here"):
            raise Stopped
        assert left.value.code == status
        assert "saved where it was; go on with: mutualign run --resume here" in capsys.readouterr().err


def test_ctrl_c_outside_of_training_is_no_traceback(monkeypatch, faults):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tyro.extras.subcommand_cli_from_dict", interrupted)
    with faults.injected("stopped by a signal"), pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130


def small_files_only():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))


@pytest.mark.slow
def test_a_run_on_a_disk_that_takes_no_more_says_so_and_can_go_on_later(tmp_path, faults):
    def mutualign(*arguments, **options):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mutualign", "run", *arguments]
        told = {"capture_output": True, "text": True}
        return subprocess.run(command, check=False, cwd=tmp_path, env=environment, **told, **options)

    short = ("stages.0.epochs=2", "stages.0.epoch_steps=0", "stages.0.batch_size=200")
    with faults.injected("disk full, read-only, no permission"):
        full = mutualign("--recipe", "fast", "--set", *short, preexec_fn=small_files_only)
        assert full.returncode == 2
        assert "Traceback" not in full.stderr
        assert "cannot be written: File too large; nothing that was there is lost\n  do       free space" in full.stderr
        run = RunFolder(tmp_path / "runs" / "digits" / "fast" / "seed-0")
        assert run.result() is None
        assert not list(run.path.rglob("*.part"))
        assert mutualign("--resume", str(run.path)).returncode == 0
        assert len(run.metrics()) == 2
        assert run.result() is not None
