"""Measurement of classifiers: at the end of each epoch, and of those that a run keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.task import SAMPLES, Task, kept_rows, sample_rows
from mutualign.data.types import Batch, UnlabelledImages, spread, to_floats
from mutualign.evaluation import audit, target_labels, validators
from mutualign.evaluation.gradients import loss_gradients
from mutualign.evaluation.label_shift import estimated_shares, same_within_classes
from mutualign.evaluation.records import EpochRecord, finite
from mutualign.evaluation.validators import ValidatorInputs
from mutualign.methods import Method
from mutualign.nn.classifier import Classifier
from mutualign.nn.randomness import derive_seed
from mutualign.training.callbacks import Epoch
from mutualign.training.fabric import Fabric
from mutualign.training.inference import View, predict, predict_logits

SCORED = 2000  # images of each kind for the label-free scores and the audit of an epoch
GRADIENT_IMAGES = 128  # images of each domain for the gradients of the losses
EMBEDDED = 1000  # test images of each domain whose features a run keeps, for a plot
GALLERY = 24  # images of each kind in a gallery


@dataclass(frozen=True)
class Evaluator:
    """Measures classifiers on a task's images; results depend on these and the seed only."""

    task: Task
    seed: int
    fabric: Fabric

    # An epoch ---------------------------------------------------------------------------------------------------------

    def epoch(
        self, method: Method, name: str, epoch: Epoch, previous: Int64[Tensor, " n"] | None
    ) -> tuple[EpochRecord, Int64[Tensor, " n"]]:
        """Measure an epoch; also return the predicted classes of the scored target images.

        `previous` are these classes of the epoch before. Scores and audit use no target label. Accuracies and
        pseudo-label precision do; they are recorded for the reader and decide nothing.
        """
        task, channels, fabric, classifier = self.task, self.task.shape.channels, self.fabric, method.output_model
        key = derive_seed(self.seed, epoch.stage, epoch.number, "evaluation")
        rows = spread(len(task.target_train), SCORED)
        scored = UnlabelledImages(task.target_train.images.take(rows, key))
        inputs = self._validator_inputs(classifier, scored)
        teacher = self._teacher(method, scored, inputs.target_logits)
        end = torch.ones((), device=fabric.device)  # with full weights: a loss whose weight still grows is not dead
        gradients = loss_gradients(method, self._gradient_batch(method), end, key, fabric)
        labeller = method.pseudo_labeller
        audited = replace(
            audit.audit_predictions(inputs.target_logits, previous, teacher),
            same_within_classes=same_within_classes(inputs.source_logits, inputs.target_logits),
            estimated_shares=estimated_shares(inputs.source_logits, inputs.source_labels, inputs.target_logits),
            teacher_fingerprint=_fingerprint(labeller.model) if labeller else None,
            gradients=finite(gradients.norms),
            reversal=gradients.reversal,
        )
        source_logits = inputs.source_logits  # of all held-out images, unless there are many
        if len(source_logits) < len(task.source_test):
            source_logits = predict_logits(classifier, task.source_test.images, channels, fabric, key)
        target_logits = predict_logits(classifier, task.target_test.images, channels, fabric, key)
        quality = None
        if teacher is not None:
            quality = target_labels.pseudo_label_quality(teacher.logits, task.target_train, rows, teacher.threshold)
        record = EpochRecord(
            stage=epoch.stage,
            epoch=epoch.number,
            method=name,
            train_seconds=round(epoch.train_seconds, 2),
            means=finite(epoch.means),
            scores=finite(validators.scores(inputs)),
            source_accuracy=target_labels.source_accuracy(source_logits, task.source_test),
            target_accuracy=target_labels.target_accuracy(target_logits, task.target_test),
            audit=audited,
            pseudo_labels=quality,
        )
        return record, inputs.target_logits.argmax(1)

    def _teacher(
        self, method: Method, scored: UnlabelledImages, output_logits: Float[Tensor, "n classes"]
    ) -> audit.Teacher | None:
        """Logits of the pseudo-labeller and of its student; `output_logits` are those of one of them."""
        labeller = method.pseudo_labeller
        if labeller is None:
            return None
        teacher, student = labeller.model, method.classifier
        other = student if method.output_model is teacher else teacher
        logits = predict_logits(other, scored, self.task.shape.channels, self.fabric)
        both = (output_logits, logits) if other is student else (logits, output_logits)
        return audit.Teacher(*both, labeller.threshold)

    def _validator_inputs(self, classifier: Classifier, scored: UnlabelledImages) -> ValidatorInputs:
        """Outputs for up to 2,000 images of each kind, each computed once."""
        channels, fabric = self.task.shape.channels, self.fabric
        train, held_out = self.task.source_train, self.task.source_test
        target = predict(classifier, scored, channels, fabric)
        rows = spread(len(held_out), SCORED)
        source = predict(classifier, UnlabelledImages(held_out.images.take(rows, 0)), channels, fabric)
        trained = UnlabelledImages(train.images.take(spread(len(train), SCORED), 0))
        return ValidatorInputs(
            target_logits=target.logits,
            target_features=target.features,
            view_logits=predict_logits(classifier, scored, channels, fabric, view=slight_change(self.task, scored)),
            source_logits=source.logits,
            source_features=source.features,
            source_labels=held_out.labels[rows],
            trained_features=predict(classifier, trained, channels, fabric).features,
            class_weights=classifier.class_weights,
        )

    def _gradient_batch(self, method: Method) -> Batch:
        """Images from all over the training sets, in the form of a training batch."""
        source, channels, key = self.task.source_train, self.task.shape.channels, derive_seed(self.seed, "probe")
        parts, labels, target_rows = [], torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        if method.uses_source:
            rows = spread(len(source), GRADIENT_IMAGES)
            parts.append(to_floats(source.images.take(rows, key), channels))
            labels = source.labels[rows]
        if method.uses_target:
            target_rows = spread(len(self.task.target_train), GRADIENT_IMAGES)
            parts.append(to_floats(self.task.target_train.images.take(target_rows, key), channels))
        device = self.fabric.device
        return Batch(torch.cat(parts).to(device), labels.to(device), target_rows.to(device))

    # A run ------------------------------------------------------------------------------------------------------------

    def outputs(self, classifier: Classifier) -> dict[str, Tensor]:
        """Outputs for the test images of both domains, for reports and estimates: logits, and some features.

        Source labels are included, since estimates need them; target labels are not.
        """
        channels, fabric, held_out = self.task.shape.channels, self.fabric, self.task.source_test
        rows = kept_rows(len(held_out))
        source = predict(classifier, UnlabelledImages(held_out.images.take(rows, 0)), channels, fabric)
        target = predict(classifier, self._kept_target(), channels, fabric)
        features = [one.features[spread(len(one.features), EMBEDDED)] for one in (source, target)]
        source_features, target_features = _as_half(*features)
        return {
            "source_logits": source.logits,
            "source_labels": held_out.labels[rows],
            "source_features": source_features,
            "target_logits": target.logits,
            "target_features": target_features,
        }

    def review(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Label-based diagnostics and sample images for the report, computed after training and selection."""
        kept = self._kept_target()
        found = target_labels.review(
            outputs["target_logits"], self.task.target_test, kept_rows(len(self.task.target_test)), GALLERY
        )
        shown, source, target = self.task.pictures, self.task.source_test.images, kept.pixels
        if shown is not None:
            target = shown.target.take(kept_rows(len(shown.target)), 0)
        pictures = {f"{name}_pixels": target[found[name]] for name in target_labels.GALLERIES if name in found}
        samples = {
            "source_samples": source.take(sample_rows(len(source)), 0),
            "target_samples": target[spread(len(target), SAMPLES)],
        }
        if shown is not None:
            samples = {"source_samples": shown.source_samples, "target_samples": shown.target_samples}
        if "labels" in found:
            found["embedded_labels"] = found["labels"][spread(len(kept), EMBEDDED)]
        return {**found, **pictures, **samples}

    def _kept_target(self) -> UnlabelledImages:
        """The target test images whose outputs are kept; random backgrounds are always the same draw."""
        images = self.task.target_test.images
        return UnlabelledImages(images.take(kept_rows(len(images)), derive_seed("kept")))

    def domain_accuracy(self) -> tuple[float, int]:
        """How well pixels separate the domains, and the number of images that this was measured on.

        Computed once per task, since it depends on nothing else.
        """
        if self.task not in _DOMAIN_ACCURACIES:
            _DOMAIN_ACCURACIES[self.task] = _domain_accuracy(self.task)
        return _DOMAIN_ACCURACIES[self.task]


_DOMAIN_ACCURACIES: WeakKeyDictionary[Task, tuple[float, int]] = WeakKeyDictionary()


def _domain_accuracy(task: Task) -> tuple[float, int]:
    source, target = task.source_train.images, task.target_train.images
    n, channels = min(len(source), len(target), SCORED // 2), task.shape.channels
    rows = 1 if task.features else None  # the first view
    parts = [images.take(spread(len(images), n), derive_seed("domains"))[:, :rows] for images in (source, target)]
    return audit.domain_accuracy(*(part.expand(*part.shape[:3], channels) for part in parts)), 2 * n


def _as_half(*features: Float[Tensor, "_ features"]) -> list[Float[Tensor, "_ features"]]:
    """Round features to float16; if some are too large for it, all are scaled alike, which no plot shows."""
    largest = max(float(one.abs().max()) for one in features)
    scale = max(1.0, largest / torch.finfo(torch.float16).max)
    return [(one / scale).half() for one in features]


def _fingerprint(network: torch.nn.Module) -> float:
    """A number that changes when a weight does."""
    weights = [weight.cpu() for weight in network.parameters()]  # the GPUs of Macs have no float64
    return float(torch.stack([weight.double().norm() for weight in weights]).norm())


def slight_change(task: Task, images: UnlabelledImages) -> View:
    """A change of batches of images that should keep their class.

    Images: half of a strong view's geometry, about a third of its colour. Features with several views: the mirror
    image. Other feature vectors: noise of a tenth of each feature's deviation over all `images`.
    """
    if task.features is not None and task.features.views > 1:
        return lambda batch: batch.roll(-1, dims=2)
    if task.shape.height == task.shape.width == 1:
        deviation = to_floats(images.pixels, task.shape.channels).std(0, correction=0)
        return lambda batch: batch + 0.1 * deviation.to(batch.device) * torch.randn_like(batch)
    config = AugmentConfig(geometry=0.5, colour=0.3, solarise=0.0, inversion=0.0)
    return lambda batch: strong_views(batch, config)
