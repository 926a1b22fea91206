"""A lower bound of the accuracy on unlabelled target images: the disagreement discrepancy of a linear critic (Dis2)."""

from __future__ import annotations

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from mutualign.evaluation.binomial import lower_limit, upper_limit
from mutualign.evaluation.estimators import EstimatorInputs
from mutualign.nn.randomness import generator

CONFIDENCE = 0.95
STEPS = 200  # of L-BFGS
DECAY = 1e-4  # of the critic's weights: without it the loss has no minimum where the domains are separable


def bound_accuracy(outputs: EstimatorInputs) -> float:
    """Bound the target accuracy from below, with 95 % confidence, by the worst labelling that a linear critic finds.

    A critic is a linear function of the logits that agrees with the classifier on the source and disagrees with it on
    the target. If the true labels have no larger a discrepancy than the critic's, target error <= source error +
    discrepancy. This is an assumption: it fails for errors that the logits do not show, such as classes that the source
    lacks, logits that have nothing to do with the image, and source labels that are wrong in a systematic way. And the
    loss by which critics are searched can miss larger discrepancies (Marchant et al., arXiv 2512.05931).

    The 95 % are of one look: for an epoch that was chosen by a score which includes the accuracy on the same source
    images, they are slightly less.

    Critics are trained on a random half of the images and measured on the other half, always the same. As in the
    authors' code, the critic with the largest discrepancy there counts: with few source images the last critics of the
    search disagree on the source too. The three shares that are counted are taken at their exact binomial limits, which
    together hold with 95 % confidence; where errors are rare these are closer than Hoeffding's inequality, which the
    paper uses.
    Source: Rosenfeld and Garg, "(Almost) provable error bounds under distribution shift via disagreement discrepancy",
    NeurIPS 2023, theorem 3.4.
    """
    source, labels, target = outputs.source_logits, outputs.source_labels, outputs.target_logits
    if min(len(source), len(target)) < 2 or source.shape[1] < 2:
        return 0.0
    (trained, held), (target_trained, target_held) = _halves(len(source)), _halves(len(target))
    critics = search_critics(source[trained], target[target_trained])
    source, labels, target = source[held], labels[held], target[target_held]
    return min(_bound_by(critic, source, labels, target) for critic in critics)


class Critic:
    """A linear classifier of standardised logits."""

    def __init__(self, weights: NDArray[np.float64], mean: NDArray[np.float64], scale: float) -> None:
        self._weights, self._mean, self._scale = weights, mean, scale

    def __call__(self, logits: Float[Tensor, "n classes"]) -> Int64[Tensor, " n"]:
        inputs = _with_one((logits.double().numpy() - self._mean) / self._scale)
        return torch.from_numpy((inputs @ self._weights).argmax(1))


def _bound_by(
    critic: Critic,
    source: Float[Tensor, "n classes"],
    labels: Int64[Tensor, " n"],
    target: Float[Tensor, "m classes"],
) -> float:
    wrong = source.argmax(1) != labels
    apart_source, apart = critic(source) != source.argmax(1), critic(target) != target.argmax(1)
    # Source error - source disagreement, image by image: what both count cancels.
    lost, won = wrong & ~apart_source, apart_source & ~wrong
    miss = (1 - CONFIDENCE) / 3
    error = upper_limit(int(apart.sum()), len(apart), miss) + upper_limit(int(lost.sum()), len(lost), miss)
    error -= lower_limit(int(won.sum()), len(won), miss)
    return min(max(1 - error, 0.0), 1.0)


def search_critics(source: Float[Tensor, "n classes"], target: Float[Tensor, "m classes"]) -> list[Critic]:
    """Search for a linear critic that agrees with the classifier on the source and disagrees with it on the target.

    Minimises the mean cross-entropy with the predictions on the source plus the mean disagreement loss on the target,
    log(1 + exp(c_y - mean of the other c)), with c the critic's logits and y the predicted class. Both are convex in
    the weights, so that no seed matters. Returns the critics of all steps: the first is the classifier itself, which
    agrees everywhere, and the last the minimum.
    """
    n, both = len(source), torch.cat([source, target]).double().numpy()
    mean, scale = both.mean(0), max(float(both.std()), 1e-6)
    inputs, predicted, classes = _with_one((both - mean) / scale), both.argmax(1), both.shape[1]
    chosen = np.eye(classes)[predicted]
    contrast = chosen[n:] - (1 - chosen[n:]) / (classes - 1)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = inputs @ flat.reshape(-1, classes)
        probabilities = scipy.special.softmax(logits[:n], axis=1)
        agreement = -scipy.special.log_softmax(logits[:n], axis=1)[chosen[:n] == 1].mean()
        margin = (logits[n:] * contrast).sum(1)
        slope = scipy.special.expit(margin)[:, None] * contrast / len(margin)
        gradient = inputs.T @ np.concatenate([(probabilities - chosen[:n]) / n, slope])
        value = agreement + np.logaddexp(0, margin).mean() + DECAY * float(flat @ flat)
        return value, gradient.ravel() + 2 * DECAY * flat

    # The classifier itself, up to a constant that is the same for all classes.
    weights = [np.concatenate([scale * np.eye(classes), (mean - mean.mean())[None]]).ravel()]
    scipy.optimize.minimize(
        loss,
        weights[0],
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS},
        callback=lambda now: weights.append(now.copy()),
    )
    return [Critic(one.reshape(-1, classes), mean, scale) for one in weights]


def _halves(n: int) -> tuple[Int64[Tensor, " half"], Int64[Tensor, " rest"]]:
    """Split rows at random, so that no order of the images, such as by class, matters."""
    order = torch.randperm(n, generator=generator("discrepancy", n))
    return order[: n // 2], order[n // 2 :]


def _with_one(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
