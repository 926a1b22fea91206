"""A trial as work for another process: one run for each seed, its score, and its end if others do much better."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from mutualign.errors import described
from mutualign.evaluation.records import EpochRecord
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.typed import encode_json
from mutualign.runs.folder import RunFolder
from mutualign.runs.jobs import Job, run_of
from mutualign.runs.lock import locked
from mutualign.runs.observer import Observer
from mutualign.runs.sweeps.study import Study
from mutualign.runs.work import POLL_SECONDS, Circumstances, StopFile, Work, do_work
from mutualign.training.loop import Stopped


@dataclass(frozen=True)
class TrialJob:
    """A trial to train: its number in the study, and a run for each seed."""

    study: Path
    number: int
    jobs: tuple[Job, ...]
    circumstances: Circumstances

    def work(self) -> Work:
        """Describe the trial for an engine."""
        return Work(name_of(self.number), encode_json(self))


def name_of(number: int) -> str:
    """Return what people call a trial."""
    return f"trial {number}"


def train_trial(text: str) -> str:
    """Train the trial that a text describes, in a worker, and return the outcome; a finished one stays as it is."""
    return do_work(text, TrialJob, _train)


def score_of(run: RunFolder) -> float:
    """Return the score of a complete run: the highest of its last stage, by the default validator."""
    records = run.metrics()
    last = [record for record in records if record.stage == records[-1].stage]
    return best_epoch(last, DEFAULT_VALIDATOR).scores[DEFAULT_VALIDATOR]


def _train(trial: TrialJob, stop: StopFile) -> None:
    place = trial.study / "trials" / str(trial.number)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        study = Study(trial.study)
        if study.trial(trial.number).state.is_finished():
            return
        reporter = _Reporter(study, trial, stop)
        try:
            for job in trial.jobs:
                reporter.train(job)
        except Stopped:
            if not reporter.pruned:
                raise
            study.finish(trial.number, None, pruned=True)
        except Exception as error:  # training that diverges, a fault in a method: the settings cost their trial only
            study.finish(trial.number, None, error=described(error))
            raise
        else:
            study.finish(trial.number, reporter.mean())


class _Reporter(Observer):
    """Reports the score of each epoch to the study, and stops the run of a trial that is pruned."""

    def __init__(self, study: Study, trial: TrialJob, stop: StopFile) -> None:
        self.study, self.trial, self.stop = study, trial, stop
        self.scores: list[float] = []  # of the seeds that are done
        self.pruned = False

    def train(self, job: Job) -> None:
        """Train the run of one seed. Raises Stopped if the trial is pruned, or the work is to stop."""
        settings = job.path.parent
        settings.mkdir(parents=True, exist_ok=True)
        with locked(settings, math.inf, self._wait):  # another trial may have the same settings
            run = run_of(job.spec, job.path)
            for record in run.metrics() if run else []:
                self._report(record)
            if run is None or not run.is_complete:
                experiment = job.experiment(observer=self, should_stop=self._should_stop)
                experiment.run()
                run = experiment.folder
            self.scores.append(score_of(run))

    def epoch(self, record: EpochRecord) -> None:
        self._report(record)
        warm_up = self.trial.jobs[0].epochs // 4
        self.pruned = self.pruned or self.study.should_prune(self.trial.number, warm_up)

    def mean(self) -> float:
        """Return the mean score over the seeds."""
        return sum(self.scores) / len(self.scores)

    def _report(self, record: EpochRecord) -> None:
        """Report the mean of the finished seeds' scores and of this epoch's."""
        done = [*self.scores, record.scores[DEFAULT_VALIDATOR]]
        step = len(self.scores) * self.trial.jobs[0].epochs + self._epochs_before(record) + record.epoch
        self.study.report(self.trial.number, step, sum(done) / len(done))

    def _epochs_before(self, record: EpochRecord) -> int:
        return sum(stage.epochs for stage in self.trial.jobs[0].spec.recipe.stages[: record.stage])

    def _wait(self) -> None:
        if self._should_stop():
            raise Stopped
        time.sleep(POLL_SECONDS)

    def _should_stop(self) -> bool:
        return self.pruned or self.stop()
