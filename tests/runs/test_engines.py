"""Clusters: Dask and Ray on this machine, and submitit; a worker that is lost there costs its run a second attempt."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import threading
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from mutualign.errors import MutualignError
from mutualign.runs.engines import local, open_engine, slurm
from mutualign.runs.engines.local import visible_gpus
from tests.run_contents import contents
from tests.runs.many import compare, in_this_process, run_of

RUNNING = {"7": "RUNNING"}  # the queue, by number of job
CLUSTERS = {  # recipes and options; a second run that goes on beside the lost one is tried once, since it takes seconds
    "dask": ("once,dann", []),
    "ray": ("once", []),
    "slurm": ("once", ["--engine-options", "cluster=local", "minutes=2"]),
}


@pytest.fixture(scope="module")
def alone(place):
    """The folder of the runs that this process trains."""
    (place / "once.log").write_text("1\n1\n")  # as if the method had killed its process already
    in_this_process("once,dann", Path("alone"))
    return "alone"


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_trains_what_one_process_trains_although_a_worker_is_killed(name, alone, place, monkeypatch):
    from faulty import attempts

    monkeypatch.setenv("FAULTS", str(place / name))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.2)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of a cluster that was not asked for
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: where every core is busy, they take minutes
    (place / name).mkdir()
    recipes, options = CLUSTERS[name]
    done = compare(recipes, name + "-out", "--seeds", "1", "--jobs", "2", "--engine", name, *options)
    assert done.code == 0, done
    assert "once on bright, seed 0: its worker was lost" in done.out
    assert len(attempts("once")) == 2
    for recipe in recipes.split(","):
        assert contents(run_of(name + "-out", recipe)) == contents(run_of(alone, recipe))


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("daks", [], 'unknown engine "daks"; did you mean "dask"?'),
        ("local", ["address=x"], 'engine local: unknown key "address"'),
        ("slurm", ["partion=gpu"], 'engine slurm: unknown key "partion"; did you mean "partition"?'),
        ("slurm", ["minutes=soon"], "engine slurm, minutes: expected int, got str"),
        ("slurm", ["minutes"], "write it as key=value"),
        ("dask", ["address=nowhere"], "engine dask: no scheduler at nowhere(.|\n)*hint: "),
        ("ray", ["address=127.0.0.1:1"], "engine ray: no cluster at 127.0.0.1:1(.|\n)*hint: "),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused_with_a_hint(engine, options, message):
    with pytest.raises(MutualignError, match=message):
        open_engine(engine, 2, options)


@pytest.mark.parametrize("engine", ["dask", "ray", "slurm"])
def test_an_engine_without_its_package_names_the_extra(engine, monkeypatch):
    package = {"dask": "dask", "ray": "ray", "slurm": "submitit"}[engine]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MutualignError, match=rf"pip install 'mutualign\[{engine}\]'"):
        open_engine(engine, 2)


def test_the_gpus_of_workers_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (visible_gpus(0), visible_gpus(2)) == ([], ["0", "1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8932")
    assert visible_gpus(2) == ["3", "GPU-8932"]


def test_a_worker_that_replaces_a_lost_one_has_its_gpu(monkeypatch):
    both, found = threading.Barrier(2, timeout=60), []

    class Worker(local.ProcessPoolExecutor):
        """A pool of one process, which is lost with its first work if it has the second GPU."""

        def __init__(self, *about, initargs, **more):
            self.gpu = initargs[0]["CUDA_VISIBLE_DEVICES"]

        def submit(self, function, text):
            both.wait()
            future = Future()
            if (self.gpu, text) == ("1", "first"):
                future.set_exception(BrokenProcessPool())
            else:
                future.set_result(self.gpu)
            return future

        def shutdown(self, **how): ...

    monkeypatch.setattr(local, "ProcessPoolExecutor", Worker)
    with open_engine("local", 2) as engine:
        engine._gpus = ["0", "1"]
        for text in ("first", "second"):
            done = [engine.submit(abs, text) for _ in range(2)]
            found.append({"lost" if isinstance(one.exception(), BrokenProcessPool) else one.result() for one in done})
    assert found == [{"0", "lost"}, {"0", "1"}]


def test_a_shared_disk_that_fails_for_a_moment_does_not_end_the_look_at_the_queue(tmp_path, monkeypatch):
    answers = iter([OSError(errno.ESTALE, "Stale file handle"), True])

    def exists():
        if isinstance(answer := next(answers), OSError):
            raise answer
        return answer

    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    paths = SimpleNamespace(folder=tmp_path, result_pickle=SimpleNamespace(exists=exists))
    job = SimpleNamespace(job_id="1", done=lambda: True, paths=paths, result=lambda: "outcome", cancel=print)
    with open_engine("slurm", 1, ["cluster=local", f"folder={tmp_path}"]) as engine:
        future = Future()
        engine._jobs[future] = slurm._Job(job)
        assert future.result(timeout=60) == "outcome"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Write programs of Slurm, which run lines of a shell, to the path."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(**lines):
        for name, line in lines.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
            (tmp_path / name).chmod(0o755)

    write(
        squeue="echo 7 PENDING", srun="", sbatch="echo Submitted batch job 7", scancel="echo Invalid job id >&2; exit 1"
    )
    return write


def test_a_job_that_slurm_refuses_is_an_error_with_its_words_and_a_hint(tmp_path, programs):
    programs(sbatch="echo 'sbatch: error: Invalid partition name specified' >&2; exit 1")
    refused = pytest.raises(MutualignError, match=r"fault .*Invalid partition name specified\n  hint: ")
    with open_engine("slurm", 1, [f"folder={tmp_path}", "partition=none"]) as engine, refused:
        engine.submit(str, "work")


def test_a_new_folder_of_jobs_which_are_pickles_is_the_users_alone(tmp_path, programs):
    (tmp_path / "there").mkdir(0o750)
    for name, mode in (("new", 0o700), ("there", 0o750)):
        with open_engine("slurm", 1, [f"folder={tmp_path / name}"]) as engine:
            engine.submit(str, "work")
        assert list((tmp_path / name).glob("*_submitted.pkl"))
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_job_is_queued_again_however_often_it_reaches_its_time_limit(tmp_path, programs, monkeypatch):
    from submitit.core.job_environment import SignalHandler
    from submitit.core.utils import DelayedSubmission

    class InTheJob:
        global_rank = 0

        def _requeue(self, countdown):
            queued.append(countdown)

    queued = []
    monkeypatch.setattr(SignalHandler, "has_timed_out", lambda self: True)
    monkeypatch.setattr(SignalHandler, "_exit", lambda self: None)
    with open_engine("slurm", 1, [f"folder={tmp_path}"]) as engine:
        paths = engine._jobs[engine.submit(str, "work")].job.paths
        for _ in range(10):
            work = DelayedSubmission.load(paths.submitted_pickle)
            SignalHandler(InTheJob(), paths, work).checkpoint_and_try_requeue(signal.SIGUSR2)
    assert len(queued) == 10
    assert DelayedSubmission.load(paths.submitted_pickle).args == ("work",)


def test_a_job_that_is_over_before_it_is_cancelled_stops_nothing(tmp_path, programs, monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    with open_engine("slurm", 2, [f"folder={tmp_path}"]) as engine:
        first, second = (engine.submit(str, "work") for _ in range(2))
        first.cancel()
        engine._poller.join(1)
        assert first not in engine._jobs
        assert engine._poller.is_alive()
        assert not second.done()


def test_a_job_that_leaves_no_result_is_lost_although_there_is_no_accounting(tmp_path, programs, monkeypatch):
    programs(squeue="true", sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(slurm, "PATIENCE", 0.05)
    with open_engine("slurm", 1, [f"folder={tmp_path}"]) as engine:
        future = engine.submit(str, "work")
        with pytest.raises(MutualignError, match=r"job 7 left no result; its log is .*7_0_log\.err"):
            future.result(timeout=30)


def test_a_fault_in_the_look_at_the_queue_ends_all_work_with_its_words_and_none_is_taken(tmp_path, monkeypatch):
    def fault(jobs):
        if jobs:
            raise ValueError("a bug")
        return RUNNING

    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(slurm, "_processes", fault)
    job = SimpleNamespace(job_id="7", cancel=lambda check: None)
    words = r"engine slurm: the jobs can no longer be followed\n  fault    ValueError: a bug\n  hint: "
    with open_engine("slurm", 1, ["cluster=local", f"folder={tmp_path}"]) as engine:
        engine._executor = SimpleNamespace(submit=lambda function, text: job)
        over, first = Future(), Future()
        over.cancel()
        engine._jobs |= {over: slurm._Job(job), first: slurm._Job(job)}
        with pytest.raises(MutualignError, match=words):
            first.result(timeout=60)
        with pytest.raises(MutualignError, match=words):
            engine.submit(str, "work")


def test_a_queue_that_cannot_be_read_is_told_after_a_while_and_at_last_ends_all_work(tmp_path, monkeypatch):
    answers = iter([False] * 7 + [True] + [False] * 10)
    told = []  # what the user knows at each look

    def look(jobs):
        if not jobs:
            return RUNNING
        told.append(engine.trouble)
        if next(answers):
            return RUNNING
        raise MutualignError("engine slurm: no controller\n  hint:    ...")

    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "MOST_FAILURES", 10)
    monkeypatch.setattr(slurm, "_processes", look)
    job = SimpleNamespace(job_id="7", cancel=lambda check: None)
    words = r"engine slurm: the jobs can no longer be followed\n  fault    engine slurm: no controller\n  hint: "
    with open_engine("slurm", 1, ["cluster=local", f"folder={tmp_path}"]) as engine:
        future = Future()
        engine._jobs[future] = slurm._Job(job)
        with pytest.raises(MutualignError, match=words):
            future.result(timeout=60)
        with pytest.raises(MutualignError, match=words):
            engine.submit(str, "work")  # which Slurm is not asked to take
    shown = "engine slurm: no controller; jobs go on; the queue is read again until it answers"
    assert told == [*5 * [""], *3 * [shown], *5 * [""], *5 * [shown]]


def test_a_queue_that_cannot_be_read_is_an_error_with_its_words(programs):
    programs(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(MutualignError, match=r"cannot be read: slurm_load_jobs error: Unable to contact .*\n  hint: "):
        slurm._queue()
