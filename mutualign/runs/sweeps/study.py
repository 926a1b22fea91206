"""A study: its trials in Optuna's journal, which several processes and machines share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutualign.errors import MutualignError, described, first_line
from mutualign.io.atomic import cannot_write
from mutualign.io.plugins import mutualign_command
from mutualign.io.typed import encode_json
from mutualign.nn.randomness import derive_seed
from mutualign.runs.folder import RunFolder
from mutualign.runs.lock import locked
from mutualign.runs.sweeps.space import Choices, Range, Space

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal import JournalFileOpenLock

JOURNAL, BEST = "journal.log", "best.toml"
STARTUP = 10  # trials that are drawn at random before the sampler learns
PATIENCE = 60.0  # seconds to wait for another process that asks for a trial


class Study:
    """The trials of a sweep in a folder; the best one has the highest score.

    journal.log    Optuna's journal: parameters, scores of every epoch, states
    trials/N/      locked while a process works on trial N
    runs/          the run folders of all trials
    best.toml      the recipe of the best trial
    """

    def __init__(self, folder: Path) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
        except ImportError as error:
            raise MutualignError("a sweep needs optuna\n  hint:    pip install 'mutualign[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.optuna, path = folder, optuna, folder / JOURNAL
        # Optuna takes a lock that a killed process has left after 30 seconds. Its default lock, a link, is never taken
        # where the link leads nowhere, as one to a relative path does.
        lock = JournalFileOpenLock(str(path))
        try:
            journal = JournalFileBackend(str(path), lock)
            _cut_off_partial_line(path, lock)
            storage = optuna.storages.JournalStorage(journal)
            self.study = optuna.create_study(
                storage=storage, study_name="sweep", direction="maximize", load_if_exists=True
            )
        except OSError as error:
            raise cannot_write(path, error) from error
        except (ValueError, LookupError, TypeError) as error:  # whatever Optuna raises for a line that it did not write
            raise MutualignError(
                f"{path}: not a readable journal: {first_line(described(error))}\n"
                "  hint:    restore it from a copy, or choose another --out"
            ) from error

    @staticmethod
    def is_study(folder: Path) -> bool:
        """Whether a folder holds a study."""
        return (folder / JOURNAL).is_file()

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Keep what the study is about. Raises MutualignError if the folder holds a study about something else."""
        for key, value in facts.items():
            text = encode_json(value)
            known = self.study.user_attrs.get(key)
            if known is None:
                self.study.set_user_attr(key, text)
            elif known != text:
                raise MutualignError(
                    f"{self.folder} holds a sweep with another {key}\n  here     {text}\n  there    {known}\n"
                    "  hint:    choose another --out"
                )

    def keep_options(self, options: Sequence[str]) -> None:
        """Keep the options with which `mutualign run` trains on the data of the study, for `best_command`."""
        self.study.set_user_attr("options", encode_json(options))

    def best_command(self) -> str:
        """Return the command that trains the recipe of the best trial on the data of the study."""
        options = json.loads(self.study.user_attrs.get("options", "[]"))
        return mutualign_command("run", "--recipe", self.folder / BEST, *options)

    def ask(self, space: Space, most: int) -> optuna.trial.FrozenTrial | None:
        """Return a new trial with values for all parameters; None if there are `most` trials already.

        The first trial has the values of the recipe as it is, if they are in the space. Those of the others are a
        function of the number of the trial, and of what is known of the trials before it. Values that no recipe can
        have together fail their trial.
        """
        distributions = {key: self._distribution(parameter) for key, parameter in space.parameters.items()}
        with locked(self.folder, PATIENCE):
            for left in self._running():
                if "recipe" not in left.user_attrs:  # nobody else asks now
                    self.finish(left.number, None, error="its process was killed before it had all settings")
            while (number := len(self.study.get_trials(deepcopy=False))) < most:
                self.study.sampler = self.optuna.samplers.TPESampler(
                    n_startup_trials=STARTUP, constant_liar=True, seed=derive_seed(0, "trial", number) % 2**32
                )
                if number == 0 and (unchanged := space.unchanged()):
                    self.study.enqueue_trial(unchanged)
                trial = self.study.ask(distributions)
                try:
                    trial.set_user_attr("recipe", space.recipe_with(trial.params).name)
                except MutualignError as error:
                    self.finish(trial.number, None, error=str(error))
                else:
                    return self.trial(trial.number)
        return None

    def trial(self, number: int) -> optuna.trial.FrozenTrial:
        """Return what is known of a trial."""
        return self.study.get_trials(deepcopy=False)[number]

    def unfinished(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials with settings that a process has started, or has been about to, and not finished."""
        return [trial for trial in self._running() if "recipe" in trial.user_attrs]

    def _running(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,))

    def best(self) -> optuna.trial.FrozenTrial | None:
        """Return the trial with the highest score; None if none is complete."""
        return max(self.complete(), key=lambda trial: trial.values[0], default=None)

    def complete(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that have been trained to the end."""
        return self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,))

    def accuracy(self, trial: optuna.trial.FrozenTrial) -> float | None:
        """Return the mean target accuracy of a trial's runs at their selected epochs; None without target labels.

        For reports: no decision of a sweep uses it.
        """
        paths = self.folder.glob(f"runs/*/{trial.user_attrs['recipe']}/seed-*/result.json")
        found = [RunFolder.open(path.parent).require_result().stages[-1].selected.target_accuracy for path in paths]
        known = [accuracy for accuracy in found if accuracy is not None]
        return sum(known) / len(known) if known else None

    def report(self, number: int, step: int, score: float) -> None:
        """Keep the score of an epoch of a trial; one that is known already stays."""
        frozen = self.trial(number)
        if step not in frozen.intermediate_values:
            self.optuna.trial.Trial(self.study, frozen._trial_id).report(score, step)

    def should_prune(self, number: int, warm_up: int) -> bool:
        """Whether a trial's best score so far is below the median of the others at the same epoch."""
        pruner = self.optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warm_up)
        return pruner.prune(self.study, self.trial(number))

    def finish(self, number: int, score: float | None, *, pruned: bool = False, error: str = "") -> None:
        """Finish a trial: with its score, as pruned, or as failed; one that is finished stays as it is."""
        states = self.optuna.trial.TrialState
        state = states.COMPLETE if score is not None else states.PRUNED if pruned else states.FAIL
        frozen = self.trial(number)
        with contextlib.suppress(ValueError, RuntimeError):  # another process was faster
            if error and not frozen.state.is_finished():
                self.optuna.trial.Trial(self.study, frozen._trial_id).set_user_attr("error", error)
            self.study.tell(number, score, state=state, skip_if_finished=True)

    def _distribution(self, parameter: Range | Choices) -> Any:
        found = self.optuna.distributions
        if isinstance(parameter, Choices):
            return found.CategoricalDistribution(parameter.choices)
        if parameter.whole:
            return found.IntDistribution(
                int(parameter.low), int(parameter.high), log=parameter.log, step=int(parameter.step or 1)
            )
        return found.FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _cut_off_partial_line(path: Path, lock: JournalFileOpenLock) -> None:
    """Remove the line that a full disk has cut off: Optuna would add the next one to it, and could read neither."""
    lock.acquire()
    try:
        with path.open("rb+") as journal:
            journal.truncate(journal.read().rfind(b"\n") + 1)
    finally:
        lock.release()
