"""What a run measures and keeps: at the end of each epoch, and when training is done."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.evaluation.alarms import SourceClasses, identical_domains, stage_alarms
from mutualign.evaluation.audit import class_shares
from mutualign.evaluation.measure import SCORED, Evaluator
from mutualign.evaluation.records import Alarm, EpochRecord
from mutualign.evaluation.selection import best_epoch
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.methods import METHODS, Method
from mutualign.nn.randomness import separate_draws
from mutualign.recipes import Recipe
from mutualign.runs.checkpoints import EpochInfo, Which
from mutualign.runs.folder import RunFolder
from mutualign.runs.observer import Observer
from mutualign.training.callbacks import Epoch
from mutualign.training.setup import build_classifier


@dataclass(frozen=True)
class Recorder:
    """Measures the epochs of a run and writes them into its folder."""

    recipe: Recipe
    task: Task
    folder: RunFolder
    evaluator: Evaluator
    observer: Observer

    def end_epoch(self, method: Method, epoch: Epoch) -> None:
        """Measure an epoch, and keep, record and show it."""
        stage, epochs, checkpoints = self.recipe.stages[epoch.stage], self.epochs(epoch.stage), self.folder.checkpoints
        if epochs:
            self._select(epochs)  # the loop has written the checkpoint of the epoch before
        predicted = self._predictions(epoch)
        previous = predicted[-1] if len(predicted) else None
        record, latest = self.evaluator.epoch(method, stage.method, epoch, previous)
        checkpoints.save_weights(epoch.stage, "last", method.output_model.state_dict(), EpochInfo.of(record))
        predicted = torch.cat([predicted, latest[None]])
        checkpoints.save(f"stage-{epoch.stage}-predictions", {"predicted": predicted.short()})
        self.folder.append_metrics(record)
        self.observer.epoch(record)
        shown = {alarm.name for alarm in self._stage_alarms(epoch.stage, epochs, complete=False)}
        complete = epoch.number == stage.epochs
        found = self._stage_alarms(epoch.stage, [*epochs, record], complete=complete)
        if epoch.stage == 0 and not epochs:  # not before training, which scikit-learn's import would delay
            found += self.alarms_about_data()
        for alarm in found:
            if alarm.name not in shown:
                self.observer.alarm(alarm)

    def keep_outputs(self) -> None:
        """Keep the outputs of each stage's last and selected classifiers, and a review of the final one.

        Raises MutualignError if the weights are not those of the epochs that the records choose.
        """
        outputs: dict[str, Tensor] = {}
        with separate_draws():
            classifier = build_classifier(self.recipe, self.task.shape, len(self.task.class_names))
        classifier.to(self.evaluator.fabric.device)
        checkpoints = self.folder.checkpoints
        for stage in range(len(self.recipe.stages)):
            measured, epochs = None, self.epochs(stage)
            self._select(epochs)
            chosen: dict[Which, EpochRecord] = {"last": epochs[-1], "selected": best_epoch(epochs, DEFAULT_VALIDATOR)}
            for which, record in chosen.items():
                weights, info = checkpoints.load_weights(stage, which)
                if info != EpochInfo.of(record):
                    raise MutualignError(
                        f"{self.folder.path}: the {which} weights of stage {stage} are of epoch {info.epoch}; "
                        f"by metrics.jsonl it is epoch {record.epoch}, perhaps trained again with another score\n"
                        "  hint:    train the run again in another folder"
                    )
                if info != measured:  # often the last epoch is the selected one
                    classifier.load_state_dict(weights)
                    outputs, measured = self.evaluator.outputs(classifier), info
                checkpoints.save_outputs(stage, which, outputs, info)
        checkpoints.save("review", self.evaluator.review(outputs), {"class_names": self.task.class_names})

    def epochs(self, stage: int) -> list[EpochRecord]:
        """The records of a stage so far."""
        return [record for record in self.folder.metrics() if record.stage == stage]

    def alarms_about_data(self) -> list[Alarm]:
        """The alarms that the images raise, whatever is trained."""
        alarm = identical_domains(*self.evaluator.domain_accuracy())
        return [alarm] if alarm else []

    def alarms(self, stage: int) -> list[Alarm]:
        """The alarms of a complete stage."""
        return self._stage_alarms(stage, self.epochs(stage), complete=True)

    @property
    def source_classes(self) -> SourceClasses:
        """Names of the classes, and their shares among the source labels."""
        names = self.task.class_names
        return SourceClasses(names, class_shares(self.task.source_train.labels, len(names)))

    def _select(self, epochs: list[EpochRecord]) -> None:
        """Keep the weights of a stage's last epoch as the selected ones if it is the best so far.

        Called once the epoch's checkpoint is on disk: a resume from the one before it would train the epoch again, on
        another machine with another score, and the weights that were selected before would be needed.
        """
        last, checkpoints = epochs[-1], self.folder.checkpoints
        if best_epoch(epochs, DEFAULT_VALIDATOR) is last:
            weights, info = checkpoints.load_weights(last.stage, "last")
            if info == EpochInfo.of(last):  # else a kill came in the next epoch, when these were kept already
                checkpoints.save_weights(last.stage, "selected", weights, info)

    def _stage_alarms(self, stage: int, epochs: list[EpochRecord], *, complete: bool) -> list[Alarm]:
        learns = METHODS[self.recipe.stages[stage].method].method.uses_source
        return stage_alarms(epochs, self.source_classes, complete=complete, learns_source=learns)

    def _predictions(self, epoch: Epoch) -> Int64[Tensor, "epochs images"]:
        """The classes that the stage's earlier epochs predicted for the scored target images."""
        name, images = f"stage-{epoch.stage}-predictions", min(len(self.task.target_train), SCORED)
        if epoch.number == 1 or not self.folder.checkpoints.has(name):
            return torch.empty(0, images, dtype=torch.int64)
        predicted = self.folder.checkpoints.load(name)[0].get("predicted")
        if predicted is None or predicted.dim() != 2 or predicted.shape[1] != images:
            raise MutualignError(f"{self.folder.path}: checkpoints/{name}.safetensors has no predictions of this run")
        return predicted[: epoch.number - 1].long()
