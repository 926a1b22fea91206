"""The engine of Slurm: each piece of work is a job, submitted by submitit; the queue says what has become of it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mutualign.errors import MutualignError, described, first_line
from mutualign.runs.engines.base import Engine, missing_package, register_engine
from mutualign.runs.work import Function

POLL_SECONDS = 2.0
FAILURES_SHOWN = 5  # failed looks at the queue, one after the other, from which the user sees it,
MOST_FAILURES = 900  # and after which the work is given up: half an hour, or more if squeue itself waits
MOST_TIME_LIMITS = 1_000_000  # that a job may reach; submitit's default is 3
PATIENCE = 30.0  # seconds that the result of a job that left the queue may take to appear on a shared disk


@dataclass(frozen=True)
class SlurmOptions:
    """Options of the engine slurm."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    minutes: int = 60  # the time limit; a run that reaches it is queued again, and resumes
    cpus: int = 1
    gpus: int = 0
    gigabytes: float = 0  # of memory; 0 leaves it to the cluster
    folder: Path = Path("slurm")  # for the jobs' files and logs, on the shared disk
    cluster: Literal["slurm", "local"] = "slurm"  # local: processes of this machine, to try it without Slurm


class Resumable:
    """A function that Slurm may interrupt: called again with the same text, it resumes."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def __call__(self, text: str) -> str:
        return self.function(text)

    def checkpoint(self, text: str) -> Any:
        """Return what submitit queues again at the time limit: the same call, for the run folder has everything."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, text)


@dataclass
class _Job:
    """A job of submitit, and when it was first missing in the queue."""

    job: Any
    gone_since: float | None = None


@register_engine("slurm", SlurmOptions)
class Slurm(Engine):
    """Slurm jobs, one for each piece of work; `jobs` limits how many are queued at a time."""

    tells_beginning = True

    def __init__(self, jobs: int | None, options: SlurmOptions) -> None:
        try:
            import submitit
            from submitit.core.utils import JobPaths
        except ImportError as error:
            raise missing_package("slurm", "submitit") from error
        self.at_once, self.threads = jobs, options.cpus
        self._on_slurm = options.cluster == "slurm"
        self._patience = PATIENCE if self._on_slurm else 0.0
        if self._on_slurm:
            _queue()  # raises if there is no Slurm
        self._executor = submitit.AutoExecutor(
            options.folder, cluster=options.cluster, slurm_max_num_timeout=MOST_TIME_LIMITS
        )
        self._folder = JobPaths.get_first_id_independent_folder(options.folder)
        asked = {name: getattr(options, name) for name in ("partition", "account", "qos", "constraint")}
        self._executor.update_parameters(
            name="mutualign",
            timeout_min=options.minutes,
            cpus_per_task=options.cpus,
            gpus_per_node=options.gpus or None,
            mem_gb=options.gigabytes or None,
            **{f"slurm_{name}": value for name, value in asked.items() if value},
        )
        self._jobs: dict[Future[str], _Job] = {}
        self._fault = ""  # that ended the look at the queue
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._poller.start()

    def submit(self, function: Function, text: str) -> Future[str]:
        self._require_poller()
        future: Future[str] = Future()
        try:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)  # submitit unpickles what is there
            job = self._executor.submit(Resumable(function), text)
        except (OSError, RuntimeError) as error:  # submitit's errors are RuntimeErrors
            raise MutualignError(
                f"engine slurm: a job cannot be submitted\n  fault    {' '.join(str(error).split())}\n"
                "  hint:    see --engine-options; where Slurm limits your jobs, give --jobs that number"
            ) from error
        self._jobs[future] = _Job(job)
        self._require_poller()  # or nobody would see the job end
        return future

    def close(self) -> None:
        self._closed.set()
        self._poller.join()
        for one in self._jobs.values():
            one.job.cancel(check=False)

    def _require_poller(self) -> None:
        if self._fault:
            raise MutualignError(self._fault)

    def _poll(self) -> None:
        """Look at the queue until the engine is closed. A fault ends that: all work is lost, and none is taken."""
        failures = 0
        try:
            while not self._closed.wait(POLL_SECONDS):
                try:
                    self._look_at_all(_queue() if self._on_slurm else _processes(self._jobs))
                except (MutualignError, OSError) as error:  # a busy controller, or a shared disk, answers another time
                    failures += 1
                    if failures >= MOST_FAILURES:
                        raise
                    if failures >= FAILURES_SHOWN:
                        self.trouble = f"{first_line(error)}; jobs go on; the queue is read again until it answers"
                else:
                    failures, self.trouble = 0, ""
        except Exception as error:
            self._fault = (
                f"engine slurm: the jobs can no longer be followed\n  fault    {first_line(described(error))}\n"
                "  hint:    the same command resumes; jobs that run are cancelled, what they have saved is kept"
            )
            for future in list(self._jobs):
                with suppress(InvalidStateError):  # it is over, or cancelled
                    future.set_exception(MutualignError(self._fault))

    def _look_at_all(self, queue: Mapping[str, str]) -> None:
        for future, one in list(self._jobs.items()):
            if future.cancelled():
                one.job.cancel(check=False)  # it may be over
                del self._jobs[future]
            elif self._look(future, one, queue.get(one.job.job_id)):
                del self._jobs[future]

    def _look(self, future: Future[str], one: _Job, state: str | None) -> bool:
        """Pass on what has become of a job. Whether it is over."""
        if state == "RUNNING" and not future.running():
            future.set_running_or_notify_cancel()  # from now on the work itself must stop
        if state is not None:
            one.gone_since = None
            return False
        one.gone_since = one.gone_since or time.monotonic()
        left_result = _has_result(one.job.paths)
        if not left_result and time.monotonic() - one.gone_since < self._patience:
            return False
        if not future.running() and not future.set_running_or_notify_cancel():
            return True
        if not left_result:  # submitit would ask accounting, and where there is none wait for ever
            error = MutualignError(f"job {one.job.job_id} left no result; its log is {one.job.paths.stderr}")
            future.set_exception(error)
            return True
        try:
            future.set_result(one.job.result())
        except Exception as error:  # what submitit makes of a job that failed
            future.set_exception(error)
        return True


def _has_result(paths: Any) -> bool:
    """Whether the file of a job's result is there."""
    with suppress(OSError):
        paths.folder.chmod(paths.folder.stat().st_mode)  # a shared disk then looks again
    return bool(paths.result_pickle.exists())


def _queue() -> dict[str, str]:
    """Return the states of the user's jobs, by job; accounting (sacct) is not needed, as many clusters lack it."""
    command = ["squeue", "--me", "--noheader", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        words = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        raise MutualignError(
            f"engine slurm: the queue cannot be read: {first_line(words.strip() or error)}\n"
            "  hint:    start the command on a machine of the cluster, where `squeue` works"
        ) from error
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())


def _processes(jobs: dict[Future[str], _Job]) -> dict[str, str]:
    """Return the states of jobs that are processes of this machine."""
    return {one.job.job_id: "RUNNING" for one in list(jobs.values()) if not one.job.done()}
