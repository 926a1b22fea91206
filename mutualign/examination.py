"""Examination: what is measured of a classifier at an epoch's end, and of those that are kept at a run's end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from lightning_fabric import Fabric
from torch import Tensor

from mutualign.algorithms import Algorithm
from mutualign.data.augment import Views, strong_views
from mutualign.data.images import Batch, UnlabelledImages, spread, to_floats
from mutualign.data.tasks import Task
from mutualign.evidence import audit, evaluation, validators
from mutualign.evidence.validators import Evidence
from mutualign.nn.backbones import Classifier
from mutualign.randomness import derive_seed
from mutualign.training.inference import predict, predict_logits
from mutualign.training.loop import Epoch
from mutualign.training.probe import probe
from mutualign.training.runs import Record

SCORED = 2000  # images of each kind that the label-free scores and the audit of an epoch are taken on
PROBED = 128  # images of each domain that the losses' gradients are taken on
KEPT = 10_000  # test images of each domain whose outputs a run keeps,
EMBEDDED = 1000  # and those whose features it keeps, for a picture
GALLERY = 24  # images of each kind in a gallery
SAMPLES = 32  # images of each domain that are kept to be looked at, and for an exported model to be tried on


@dataclass(frozen=True)
class Examiner:
    """Looks at classifiers on a task's images. All that it measures is a function of them and of the seed."""

    task: Task
    seed: int
    fabric: Fabric

    # An epoch ---------------------------------------------------------------------------------------------------------

    def epoch(
        self, algorithm: Algorithm, epoch: Epoch, epochs: int, previous: Int64[Tensor, " n"] | None
    ) -> tuple[Record, Int64[Tensor, " n"]]:
        """The record of an epoch of `epochs`, and the classes it predicts for the scored target images.

        Scores and audit see no target label; accuracies and pseudo-label precision, which do, are for the reader.
        """
        task, channels, fabric, classifier = self.task, self.task.shape.channels, self.fabric, algorithm.adapted
        key = derive_seed(self.seed, epoch.stage, epoch.number, "evaluation")
        rows = spread(len(task.target_train), SCORED)
        scored = UnlabelledImages(task.target_train.images.take(rows, key))
        evidence = self._evidence(classifier, scored)
        teacher = self._teacher(algorithm, scored, evidence.target_logits)
        found = audit.facts(evidence.target_logits, previous, teacher)
        if algorithm.teacher is not None:
            found["teacher_fingerprint"] = _fingerprint(algorithm.teacher.model)
        gradients = probe(algorithm, self._probe_batch(algorithm), torch.tensor(epoch.number / epochs), key, fabric)
        found |= {"gradients": gradients.norms, "reversal": gradients.reversal}
        record: Record = {
            "stage": epoch.stage,
            "epoch": epoch.number,
            "train_seconds": round(epoch.train_seconds, 2),
            "means": epoch.means,
            "scores": validators.scores(evidence),
            "audit": found,
        }
        source_logits = predict_logits(classifier, task.source_test.images, channels, fabric, key)
        target_logits = predict_logits(classifier, task.target_test.images, channels, fabric, key)
        record["source_accuracy"] = evaluation.source_accuracy(source_logits, task.source_test)
        record["target_accuracy"] = evaluation.target_accuracy(target_logits, task.target_test)
        if teacher is not None:
            quality = evaluation.pseudo_label_quality(teacher.logits, task.target_train, rows, teacher.threshold)
            record["pseudo_labels"] = quality._asdict()
        return record, evidence.target_logits.argmax(1)

    def _teacher(
        self, algorithm: Algorithm, scored: UnlabelledImages, adapted: Float[Tensor, "n classes"]
    ) -> audit.Teacher | None:
        """Outputs of teacher and student, if there are two; `adapted` is what one of them gave already."""
        if algorithm.teacher is None:
            return None
        teacher, student = algorithm.teacher.model, algorithm.classifier
        other = student if algorithm.adapted is teacher else teacher
        logits = predict_logits(other, scored, self.task.shape.channels, self.fabric)
        both = (adapted, logits) if other is student else (logits, adapted)
        return audit.Teacher(*both, algorithm.threshold)

    def _evidence(self, classifier: Classifier, scored: UnlabelledImages) -> Evidence:
        """What the validators see: outputs for up to 2,000 images of each kind, each computed once."""
        channels, fabric = self.task.shape.channels, self.fabric
        train, held_out = self.task.source_train, self.task.source_test
        target = predict(classifier, scored, channels, fabric)
        rows = spread(len(held_out), SCORED)
        source = predict(classifier, UnlabelledImages(held_out.images.take(rows, 0)), channels, fabric)
        trained = UnlabelledImages(train.images.take(spread(len(train), SCORED), 0))
        return Evidence(
            target_logits=target.logits,
            target_features=target.features,
            view_logits=predict_logits(classifier, scored, channels, fabric, view=_slightly_changed),
            source_logits=source.logits,
            source_features=source.features,
            source_labels=held_out.labels[rows],
            trained_features=predict(classifier, trained, channels, fabric).features,
        )

    def _probe_batch(self, algorithm: Algorithm) -> Batch:
        """Images from all over the training sets, as a step would see them."""
        source, channels, key = self.task.source_train, self.task.shape.channels, derive_seed(self.seed, "probe")
        rows = spread(len(source), PROBED)
        parts = [to_floats(source.images.take(rows, key), channels)]
        if algorithm.uses_target:
            target = self.task.target_train.images
            parts.append(to_floats(target.take(spread(len(target), PROBED), key), channels))
        device = self.fabric.device
        return Batch(torch.cat(parts).to(device), source.labels[rows].to(device))

    # A run ------------------------------------------------------------------------------------------------------------

    def outputs(self, classifier: Classifier) -> dict[str, Tensor]:
        """What is kept of a classifier for looking back: logits for the test images of both domains, some features.

        Source labels are among it, as estimates need them; target labels are not.
        """
        channels, fabric, held_out = self.task.shape.channels, self.fabric, self.task.source_test
        rows = spread(len(held_out), KEPT)
        source = predict(classifier, UnlabelledImages(held_out.images.take(rows, 0)), channels, fabric)
        target = predict(classifier, self._kept_target(), channels, fabric)
        return {
            "source_logits": source.logits,
            "source_labels": held_out.labels[rows],
            "source_features": source.features[spread(len(rows), EMBEDDED)].half(),
            "target_logits": target.logits,
            "target_features": target.features[spread(len(target.logits), EMBEDDED)].half(),
        }

    def review(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What target labels tell of outputs, and images to look at; made for the report, when all is decided."""
        kept = self._kept_target()
        found = evaluation.review(
            outputs["target_logits"], self.task.target_test, spread(len(self.task.target_test), KEPT), GALLERY
        )
        pictures = {f"{name}_pixels": kept.pixels[found[name]] for name in evaluation.GALLERIES if name in found}
        source = self.task.source_test.images
        samples = {
            "source_samples": source.take(spread(len(source), SAMPLES), 0),
            "target_samples": kept.pixels[spread(len(kept), SAMPLES)],
        }
        if "labels" in found:
            found["embedded_labels"] = found["labels"][spread(len(kept), EMBEDDED)]
        return {**found, **pictures, **samples}

    def _kept_target(self) -> UnlabelledImages:
        """The target test images whose outputs are kept; where backgrounds are drawn anew, always the same draw."""
        images = self.task.target_test.images
        return UnlabelledImages(images.take(spread(len(images), KEPT), derive_seed("kept")))

    def domain_accuracy(self) -> tuple[float, int]:
        """How well pixels tell the domains apart, and on how many images that was measured."""
        source, target = self.task.source_train.images, self.task.target_train.images
        n, channels = min(len(source), len(target), SCORED // 2), self.task.shape.channels
        parts = [images.take(spread(len(images), n), derive_seed("domains")) for images in (source, target)]
        return audit.domain_accuracy(*(part.expand(*part.shape[:3], channels) for part in parts)), 2 * n


def _fingerprint(network: torch.nn.Module) -> float:
    """A number that changes when a weight does."""
    return float(torch.stack([weight.double().norm() for weight in network.parameters()]).norm())


def _slightly_changed(images: Tensor) -> Tensor:
    """The view whose class should be that of its image: half of a strong view's geometry, a third of its colour."""
    return strong_views(images, Views(geometry=0.5, colour=0.3, solarise=0.0, inversion=0.0))
