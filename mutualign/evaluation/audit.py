"""The audit: what can be seen of an epoch without target labels, and the alarms that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.types import Pixels, to_floats
from mutualign.evaluation.records import Alarm, EpochAudit, EpochRecord
from mutualign.evaluation.validators import kept_information

# Facts of an epoch ----------------------------------------------------------------------------------------------------


class Teacher(NamedTuple):
    """What a teacher and its student give for some target images."""

    logits: Float[Tensor, "n classes"]
    student_logits: Float[Tensor, "n classes"]
    threshold: float  # the top probability from which the teacher's labels count


def audit_predictions(
    logits: Float[Tensor, "n classes"],
    previous: Int64[Tensor, " n"] | None = None,
    teacher: Teacher | None = None,
) -> EpochAudit:
    """Measure an epoch's predictions on n target images; `previous` are the classes of the epoch before.

    Teacher, gradients and reversal are left out where there are none.
    """
    predicted, classes = logits.argmax(1), logits.shape[1]
    bins = (logits.softmax(1).amax(1) * 10).long().clamp(max=9)
    found = EpochAudit(
        predicted_shares=_shares(predicted, classes),
        confidence_histogram=_shares(bins, 10),
        drift=None if previous is None else _mean(predicted != previous),
    )
    if teacher is None:
        return found
    confident = teacher.logits.softmax(1).amax(1) >= teacher.threshold
    labels = teacher.logits.argmax(1)
    return replace(
        found,
        coverage=_mean(confident),
        pseudo_label_shares=_shares(labels[confident], classes),
        teacher_agreement=_mean(labels == teacher.student_logits.argmax(1)),
    )


def class_shares(labels: Int64[Tensor, " n"], classes: int) -> list[float]:
    """How often each class occurs among labels; of the source, this is the prior that predictions are held against."""
    return _shares(labels, classes)


def domain_accuracy(source: Pixels, target: Pixels) -> float:
    """How well source and target images are told apart by their pixels: 0.5 is not at all, 1 always.

    Out-of-bag accuracy of a random forest of 50 trees on the mean and the deviation of each cell of a 7x7 grid.
    """
    from sklearn.ensemble import RandomForestClassifier

    images = to_floats(torch.cat([source, target]), source.shape[3]).double()
    grid = (min(7, images.shape[2]), min(7, images.shape[3]))
    mean = F.adaptive_avg_pool2d(images, grid)
    deviation = (F.adaptive_avg_pool2d(images.square(), grid) - mean.square()).clamp_min(0).sqrt()
    cells = torch.cat([mean.flatten(1), deviation.flatten(1)], dim=1).numpy()
    is_source = torch.arange(len(images)).numpy() < len(source)
    forest = RandomForestClassifier(50, oob_score=True, random_state=0).fit(cells, is_source)
    return float(forest.oob_score_)


# Alarms ---------------------------------------------------------------------------------------------------------------

LEARNT = 0.1  # of the way from guessing to always right, on held-out source images
DEAD = 1e-6  # of the largest gradient: less than this is none
SATURATED = 0.995  # of the discriminator's accuracy
COLLAPSED = 0.5  # of the prior's effective number of classes
RARE = 0.1  # of its share in the source: a class predicted less often than that counts as missing,
MISSING = 0.2  # and missing classes that make up this share of the source are too many
CONFIRMING = 0.1  # by which coverage rises while consistency falls


def alarms(epochs: Sequence[EpochRecord], prior: Sequence[float], complete: bool = True) -> list[Alarm]:
    """The alarms of a stage's epochs so far; `prior` is the shares of the classes in the source.

    Before the stage is complete only that is told which no further epoch can mend: gradients that are not there or
    point the wrong way, and a teacher that does not move.
    """
    if not epochs:
        return []
    found = [_dead_gradient(epochs[-1]), _wrong_direction(epochs[-1]), _frozen_teacher(epochs)]
    if complete:
        found += [
            _source_not_learnt(epochs[-1], prior),
            _discriminator_saturated(epochs[-1]),
            _collapsed(epochs[-1], prior) or _imbalanced(epochs[-1], prior),
            _self_confirming(epochs),
        ]
    return [alarm for alarm in found if alarm is not None]


def identical_domains(accuracy: float, images: int) -> Alarm | None:
    """Whether `domain_accuracy`, measured on so many images in all, is within three deviations of guessing."""
    if accuracy > 0.5 + 3 * math.sqrt(0.25 / images):
        return None
    return Alarm(
        "identical domains",
        f"source and target images are told apart in {accuracy:.0%} of cases; guessing gives 50 %",
        "both are the same images, or of the same kind: look at what was given as the target; there is nothing to "
        "adapt to",
    )


def negative_transfer(adapted: EpochRecord, source_only: EpochRecord) -> Alarm | None:
    """Whether an epoch of an adapted model is no better than one of a model trained on the source only.

    By two measures without labels, which both must say so: information maximisation, and `kept_information`.
    """
    measures: list[tuple[float, float]] = []
    for epoch in (adapted, source_only):
        kept = kept_information(_audit(epoch).predicted_shares, epoch.scores["augmentation_consistency"])
        measures.append((epoch.scores["information_maximisation"], kept))
    if any(ours > theirs for ours, theirs in zip(*measures, strict=True)):
        return None
    (sure, kept), (sure_before, kept_before) = measures
    return Alarm(
        "negative transfer",
        f"no better than source only without labels: information maximisation {sure:.2f}, there {sure_before:.2f}; "
        f"information that survives a slight change {kept:.2f}, there {kept_before:.2f}",
        "adaptation did not help, or did harm: keep the source-only model, or try another recipe",
    )


def _dead_gradient(epoch: EpochRecord) -> Alarm | None:
    gradients = _audit(epoch).gradients
    largest = max(gradients.values(), default=0.0)
    dead = [name for name, norm in gradients.items() if name != "class" and norm <= DEAD * largest]
    if not dead:
        return None
    cause = "the loss does not depend on the features: look for a softmax over a single output, a detach, a weight of 0"
    if _audit(epoch).coverage == 0:
        cause = "the teacher is sure of no target image: lower the threshold, or train longer before this stage"
    return Alarm("no adaptation gradient", f"the gradient of {', '.join(dead)} at the features is zero", cause)


def _wrong_direction(epoch: EpochRecord) -> Alarm | None:
    cosine = _audit(epoch).reversal
    if cosine is None or cosine <= 0:
        return None
    return Alarm(
        "reversal with the wrong sign",
        "the domain loss pulls the features to where the discriminator tells the domains apart "
        f"(cosine {cosine:+.2f}, expected -1)",
        "the gradient reversal is missing, or has a negative strength",
    )


def _frozen_teacher(epochs: Sequence[EpochRecord]) -> Alarm | None:
    fingerprints = [_audit(epoch).teacher_fingerprint for epoch in epochs[-2:]]
    if len(fingerprints) < 2 or fingerprints[0] is None or fingerprints[0] != fingerprints[1]:
        return None
    return Alarm(
        "teacher does not move",
        "the teacher's weights are those of an epoch ago",
        "it is not updated after each step, or its decay is 1: pseudo-labels stay what they were at the start",
    )


def _source_not_learnt(epoch: EpochRecord, prior: Sequence[float]) -> Alarm | None:
    accuracy, guessing = epoch.scores["source_accuracy"], max(prior)
    if accuracy > guessing + LEARNT * (1 - guessing):
        return None
    return Alarm(
        "source is not learnt",
        f"{accuracy:.0%} of held-out source images are right; always saying the commonest class gives {guessing:.0%}",
        "labels do not belong to their images (shuffled, shifted by one?), the learning rate is far too high, or the "
        "training was far too short: raise epochs, or epoch_steps where images are few",
    )


def _discriminator_saturated(epoch: EpochRecord) -> Alarm | None:
    accuracy = epoch.means.get("domain_accuracy", 0.0)
    if accuracy < SATURATED:
        return None
    return Alarm(
        "discriminator saturated",
        f"the discriminator tells the domains apart in {accuracy:.1%} of cases",
        "the features are not aligned at all: a higher domain weight or a lower learning rate may help",
    )


def _collapsed(epoch: EpochRecord, prior: Sequence[float]) -> Alarm | None:
    shares = _audit(epoch).predicted_shares
    effective, expected = _effective_classes(shares), _effective_classes(prior)
    if effective > max(COLLAPSED * expected, 1.0) or expected < 1.5:
        return None
    top = max(range(len(shares)), key=shares.__getitem__)
    return Alarm(
        "predicted classes collapsed",
        f"{shares[top]:.0%} of the target images are put into class {top}; {effective:.1f} classes in effect, where "
        f"the source has {expected:.1f}",
        "the model does not carry over to the target, or pseudo-labels have run into few classes: try another recipe, "
        "a lower learning rate, a higher threshold, an earlier epoch",
    )


def _imbalanced(epoch: EpochRecord, prior: Sequence[float]) -> Alarm | None:
    shares = _audit(epoch).predicted_shares
    missing = [label for label, share in enumerate(shares) if share < RARE * prior[label]]
    mass = sum(prior[label] for label in missing)
    if mass < MISSING:
        return None
    return Alarm(
        "classes missing among the predictions",
        f"hardly any target image is put into class {', '.join(map(str, missing))}, {mass:.0%} of the source",
        "the target lacks these classes, or predictions are biased: methods that align whole domains go wrong where "
        "class frequencies differ",
    )


def _self_confirming(epochs: Sequence[EpochRecord]) -> Alarm | None:
    if _audit(epochs[-1]).coverage is None:
        return None
    consistent = [epoch.scores["augmentation_consistency"] for epoch in epochs]
    coverage = [_audit(epoch).coverage or 0.0 for epoch in epochs]
    best = max(range(len(epochs)), key=consistent.__getitem__)
    fall, rise = consistent[best] - consistent[-1], coverage[-1] - coverage[best]
    if fall < CONFIRMING or rise < CONFIRMING:
        return None
    return Alarm(
        "pseudo-labels confirm themselves",
        f"since epoch {best + 1} the teacher labels {coverage[best]:.0%} -> {coverage[-1]:.0%} of the target, while "
        f"predictions that survive a slight change fell {consistent[best]:.0%} -> {consistent[-1]:.0%}",
        f"growing surer, and not better: keep epoch {best + 1}, raise the threshold, or lower the learning rate",
    )


def _audit(epoch: EpochRecord) -> EpochAudit:
    """The audit of an epoch; an empty one for runs from before the audit."""
    return epoch.audit or EpochAudit([], [])


def _effective_classes(shares: Sequence[float]) -> float:
    """As many equally frequent classes are as hard to guess."""
    return math.exp(_entropy(shares))


def _entropy(shares: Sequence[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


def _shares(labels: Int64[Tensor, " n"], classes: int) -> list[float]:
    counts = torch.bincount(labels, minlength=classes).double()
    return (counts / counts.sum().clamp(min=1)).tolist()


def _mean(flags: Tensor) -> float:
    return float(flags.double().mean())
