"""Alarms: what the audit of a run says about whether to trust it, without target labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mutualign.evaluation.binomial import upper_limit
from mutualign.evaluation.records import Alarm, EpochAudit, EpochRecord
from mutualign.evaluation.verdict import Verdict, source_is_learnt
from mutualign.io.numbers import percent

DEAD = 1e-6  # of the largest gradient norm: anything smaller counts as zero
SATURATED = 0.995  # accuracy of the discriminator
COLLAPSED = 0.5  # of the prior's effective number of classes
RARE = 0.1  # of its share in the source: a class predicted less often counts as missing,
MISSING = 0.2  # and missing classes with this share of the source in total raise an alarm
CONFIRMING = 0.1  # rise of coverage and fall of consistency that together raise an alarm
SEPARABLE = 0.55  # accuracy of separating the domains below which they count as identical
LIKELY = 0.1  # p-value from which class frequencies alone explain the predictions,
SHIFTED = 0.25  # and share of the images whose class would have to change
LOW = 0.8  # of the source accuracy: a target accuracy below it is low if labels show it,
LOW_ESTIMATE = 0.85  # or if it is estimated
NAMED = 5  # classes that a message names


@dataclass(frozen=True)
class SourceClasses:
    """The classes of the source: their names, and their shares among the training labels."""

    names: Sequence[str]
    shares: Sequence[float]


def stage_alarms(
    epochs: Sequence[EpochRecord], source: SourceClasses, *, complete: bool = True, learns_source: bool = True
) -> list[Alarm]:
    """Return the alarms for a stage's epochs so far.

    Before the stage is `complete`, only problems that more training cannot fix are reported: zero or reversed gradients
    and a frozen teacher. `learns_source` is whether the stage trains on the source; a stage that does not is not
    expected to classify it well.
    """
    if not epochs:
        return []
    unsure = epochs[-1].audit.coverage == 0  # a teacher sure of no image yet: its losses may still begin
    found = [
        _dead_gradient(epochs[-1]) if complete or not unsure else None,
        _wrong_direction(epochs[-1]),
        _frozen_teacher(epochs),
    ]
    if complete:
        found += [
            _source_not_learnt(epochs[-1], source) if learns_source else None,
            _discriminator_saturated(epochs[-1]),
            _predicted_classes(epochs[-1], source),
            _self_confirming(epochs),
        ]
    return [alarm for alarm in found if alarm is not None]


def identical_domains(accuracy: float, images: int) -> Alarm | None:
    """Raise the alarm if `domain_accuracy`, measured on `images` in all, is at chance and cannot be much above it.

    Within three deviations of chance, and certainly (at 95 %) below `SEPARABLE`: a few images cannot show that.
    """
    right = min(round(max(accuracy, 0.5) * images), images)
    if accuracy > 0.5 + 3 * math.sqrt(0.25 / images) or upper_limit(right, images, 0.05) > SEPARABLE:
        return None
    return Alarm(
        "identical domains",
        f"a classifier separates source and target images in {percent(accuracy, 0)} of cases; chance is 50 %",
        "both are the same images, or of the same kind: check what was given as the target; there is nothing to adapt "
        "to",
    )


def negative_transfer(verdict: Verdict) -> Alarm | None:
    """Return the alarm of a run that is worse than its source-only run."""
    if verdict.kind != "made it worse":
        return None
    return Alarm(
        "negative transfer",
        verdict.sentence,
        f"keep the source-only model, {verdict.compared_with}, or try another recipe",
    )


def verdict_alarms(verdict: Verdict, source_accuracy: float) -> list[Alarm]:
    """Return the alarms of a complete run: harm, and a low accuracy on the target.

    Both use target labels where there are any, and evidence without them otherwise.
    """
    harm = negative_transfer(verdict)
    found = [harm] if harm else []
    known = verdict.true_accuracy is not None
    accuracy, least = (verdict.true_accuracy, LOW) if known else (verdict.accuracy, LOW_ESTIMATE)
    if accuracy is not None and accuracy < least * source_accuracy:
        found.append(
            Alarm(
                "low target accuracy",
                f"{percent(accuracy, 0)} of target images are right, {'by' if known else 'estimated without'} labels, "
                f"and {percent(source_accuracy, 0)} of the held-out source images",
                "the domains may be too different for this recipe: look at the images, try another recipe, or label "
                "some target images",
            )
        )
    return found


def _dead_gradient(epoch: EpochRecord) -> Alarm | None:
    gradients = epoch.audit.gradients
    largest = max(gradients.values(), default=0.0)
    dead = [name for name, norm in gradients.items() if name != "class" and norm <= DEAD * largest]
    if not dead:
        return None
    cause = "the loss does not depend on the features: look for a softmax over a single output, a detach, a weight of 0"
    if epoch.audit.coverage == 0:
        cause = "no target image reaches the teacher's threshold: lower it, or train longer before this stage"
    return Alarm("no adaptation gradient", f"the gradient of {', '.join(dead)} at the features is zero", cause)


def _wrong_direction(epoch: EpochRecord) -> Alarm | None:
    cosine = epoch.audit.reversal
    if cosine is None or cosine <= 0:
        return None
    return Alarm(
        "reversal with the wrong sign",
        "the domain loss pulls the features to where the discriminator separates the domains "
        f"(cosine {cosine:+.2f}, expected -1)",
        "the gradient reversal is missing, or has a negative strength",
    )


def _frozen_teacher(epochs: Sequence[EpochRecord]) -> Alarm | None:
    fingerprints = [epoch.audit.teacher_fingerprint for epoch in epochs[-2:]]
    if len(fingerprints) < 2 or fingerprints[0] is None or fingerprints[0] != fingerprints[1]:
        return None
    return Alarm(
        "teacher does not move",
        "the teacher's weights have not changed for an epoch",
        "it is not updated after each step, or its decay is 1: pseudo-labels stay as they were at the start",
    )


def _source_not_learnt(epoch: EpochRecord, source: SourceClasses) -> Alarm | None:
    accuracy, guessing = epoch.scores["source_accuracy"], max(source.shares)
    if source_is_learnt(accuracy, guessing):
        return None
    return Alarm(
        "source is not learnt",
        f"{percent(accuracy, 0)} of held-out source images are right; always predicting the commonest class gives "
        f"{percent(guessing, 0)}",
        "labels do not belong to their images (shuffled, shifted by one?), the learning rate is far too high, or the "
        "training was far too short: raise epochs, or epoch_steps if there are few images",
    )


def _discriminator_saturated(epoch: EpochRecord) -> Alarm | None:
    accuracy = epoch.means.get("domain_accuracy", 0.0)
    if accuracy < SATURATED:
        return None
    return Alarm(
        "discriminator saturated",
        f"the discriminator separates the domains in {percent(accuracy)} of cases",
        "the features are not aligned at all: a higher domain weight or a lower learning rate may help",
    )


def _predicted_classes(epoch: EpochRecord, source: SourceClasses) -> Alarm | None:
    """What the shares of the predicted classes say; if other class frequencies explain them, only that."""
    audit = epoch.audit
    likely = audit.same_within_classes is not None and audit.same_within_classes >= LIKELY
    if not likely and (collapsed := _collapsed(epoch, source)):
        return collapsed
    return _missing(epoch, source) or (_label_shift(audit, source) if likely else None)


def _collapsed(epoch: EpochRecord, source: SourceClasses) -> Alarm | None:
    shares = epoch.audit.predicted_shares
    effective, expected = _effective_classes(shares), _effective_classes(source.shares)
    if not shares or effective > max(COLLAPSED * expected, 1.0) or expected < 1.5:
        return None
    top = max(range(len(shares)), key=shares.__getitem__)
    return Alarm(
        "predicted classes collapsed",
        f"{percent(shares[top], 0)} of the target images are put into {_named([top], source)}; {effective:.1f} classes "
        f"in effect, the source has {expected:.1f}",
        "the model does not carry over to the target, or pseudo-labels have run into few classes: try another recipe, "
        "a lower learning rate, a higher threshold, an earlier epoch",
    )


def _missing(epoch: EpochRecord, source: SourceClasses) -> Alarm | None:
    shares = epoch.audit.predicted_shares
    missing = [label for label, share in enumerate(shares) if share < RARE * source.shares[label]]
    mass = sum(source.shares[label] for label in missing)
    if mass < MISSING:
        return None
    return Alarm(
        "classes missing among the predictions",
        f"hardly any target image is put into {_named(missing, source)}, {percent(mass, 0)} of the source",
        "the target lacks these classes, or predictions are biased: methods that align whole domains fail if class "
        "frequencies differ",
    )


def _label_shift(audit: EpochAudit, source: SourceClasses) -> Alarm | None:
    shares = audit.estimated_shares or []
    changes = [ours - theirs for ours, theirs in zip(shares, source.shares, strict=False)]
    if sum(map(abs, changes)) / 2 < SHIFTED:
        return None
    most = max(range(len(changes)), key=lambda label: abs(changes[label]))
    return Alarm(
        "class frequencies differ",
        f"{_named([most], source)} has {percent(shares[most], 0)} of the target images, as estimated from the "
        f"predictions, and {percent(source.shares[most], 0)} of the source; within classes both domains look alike",
        "methods that align whole domains fail if class frequencies differ: prefer one that does not, such as atdoc",
    )


def _self_confirming(epochs: Sequence[EpochRecord]) -> Alarm | None:
    if epochs[-1].audit.coverage is None:
        return None
    consistent = [epoch.scores["augmentation_consistency"] for epoch in epochs]
    coverage = [epoch.audit.coverage or 0.0 for epoch in epochs]
    best = max(range(len(epochs)), key=consistent.__getitem__)
    fall, rise = consistent[best] - consistent[-1], coverage[-1] - coverage[best]
    if fall < CONFIRMING or rise < CONFIRMING:
        return None
    return Alarm(
        "pseudo-labels confirm themselves",
        f"since epoch {best + 1} the teacher labels {percent(coverage[best], 0)} -> {percent(coverage[-1], 0)} of the "
        f"target, while predictions that survive a slight change fell {percent(consistent[best], 0)} -> "
        f"{percent(consistent[-1], 0)}",
        f"confidence grows but predictions do not improve: keep epoch {best + 1}, raise the threshold, or lower the "
        "learning rate",
    )


def _named(labels: Sequence[int], source: SourceClasses) -> str:
    """`class "cat"`, or `classes "cat", "dog" and 3 more`."""
    shown = ", ".join(f'"{source.names[label]}"' for label in labels[:NAMED])
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return f"{'class' if len(labels) == 1 else 'classes'} {shown}{more}"


def _effective_classes(shares: Sequence[float]) -> float:
    """The number of equally frequent classes with the same entropy."""
    return math.exp(-sum(share * math.log(share) for share in shares if share > 0))
