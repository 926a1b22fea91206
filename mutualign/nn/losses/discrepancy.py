"""Distances between the features, or the predictions, of two domains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mutualign.nn.shapes import check_shapes

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)  # times the mean squared distance, as in DAN's reference implementation


@check_shapes
def squared_distances(a: Float[Tensor, "a features"], b: Float[Tensor, "b features"]) -> Float[Tensor, "a b"]:
    """Squared Euclidean distances between the rows of two matrices, in float32 under autocast too.

    With products in bf16, rows that are close would be as far apart as the product is rounded.
    """
    a, b = a.float(), b.float()
    with torch.autocast(a.device.type, enabled=False):
        return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


@check_shapes
def gaussian_kernels(
    rows: Float[Tensor, "n features"], bandwidths: Sequence[float] = BANDWIDTHS
) -> Float[Tensor, "n n"]:
    """Sum of Gaussian kernels exp(-|a - b|^2 / (2 s m)) over bandwidths s; m is the mean squared distance, detached.

    >>> gaussian_kernels(torch.zeros(2, 3)).tolist()
    [[5.0, 5.0], [5.0, 5.0]]
    """
    squares = squared_distances(rows, rows)
    mean = squares.detach().mean().clamp_min(torch.finfo(squares.dtype).eps)
    return torch.stack([torch.exp(-squares / (2 * bandwidth * mean)) for bandwidth in bandwidths]).sum(0)


@check_shapes
def mmd(
    source: Float[Tensor, "source features"],
    target: Float[Tensor, "target features"],
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy with several Gaussian kernels, unbiased: 0 on average for equal distributions.

    Source: Gretton et al., JMLR 2012, eq. 3; Long et al., "Learning transferable features with deep adaptation
    networks" (DAN), ICML 2015.

    >>> rows = torch.arange(4.0)[:, None]
    >>> bool(mmd(rows, rows + 10) > mmd(rows, rows))
    True
    """
    return _unbiased(gaussian_kernels(torch.cat([source, target]), bandwidths), len(source))


def joint_mmd(
    source: Sequence[Float[Tensor, "source _"]], target: Sequence[Float[Tensor, "target _"]]
) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy of the joint distribution of several layers: kernels are multiplied.

    The last layer, predictions, has one kernel of bandwidth 0.92^2; the others have those of `mmd`.
    Source: Long et al., "Deep transfer learning with joint adaptation networks" (JAN), ICML 2017, eq. 4.

    >>> features, predictions = torch.arange(4.0)[:, None], torch.eye(4)
    >>> source, target = [features, predictions], [features + 10, predictions]
    >>> bool(joint_mmd(source, target) > joint_mmd(source, source))
    True
    """
    *hidden, predictions = (torch.cat(pair) for pair in zip(source, target, strict=True))
    kernel = torch.exp(-squared_distances(predictions, predictions) / (2 * 0.92**2))
    for layer in hidden:
        kernel = kernel * gaussian_kernels(layer)
    return _unbiased(kernel, len(source[0]))


def _unbiased(kernel: Float[Tensor, "n n"], n_source: int) -> Float[Tensor, ""]:
    """Mean kernel within the source, plus within the target, without the diagonal, minus twice the mean across."""
    within = [kernel[:n_source, :n_source], kernel[n_source:, n_source:]]
    means = [(part.sum() - part.trace()) / max(len(part) * (len(part) - 1), 1) for part in within]
    return means[0] + means[1] - 2 * kernel[:n_source, n_source:].mean()


@check_shapes
def coral(source: Float[Tensor, "source features"], target: Float[Tensor, "target features"]) -> Float[Tensor, ""]:
    """|C_s - C_t|^2 / (4 d^2): the squared Frobenius distance of the covariances of d features.

    A single row has no covariance: 0. Source: Sun and Saenko, "Deep CORAL", ECCV 2016 workshops, eq. 1.

    >>> source, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    >>> float(coral(source, target))  # covariances 2 and 8: 6^2 / 4
    9.0
    """
    difference = _covariance(source) - _covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


def _covariance(rows: Float[Tensor, "n features"]) -> Float[Tensor, "features features"]:
    rows = rows.float()
    centred = rows - rows.mean(0)
    with torch.autocast(rows.device.type, enabled=False):
        return centred.T @ centred / max(len(rows) - 1, 1)


@check_shapes
def classifier_discrepancy(first: Float[Tensor, "n classes"], second: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """Mean absolute difference of the class probabilities of two classifiers, given their logits.

    Source: Saito et al., "Maximum classifier discrepancy" (MCD), CVPR 2018, eq. 3.

    >>> one, other = torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])
    >>> float(classifier_discrepancy(one, other))
    1.0
    """
    return (first.softmax(1) - second.softmax(1)).abs().mean()


@check_shapes
def margin_disparity(
    source: Float[Tensor, "source classes"],
    source_adversary: Float[Tensor, "source classes"],
    target: Float[Tensor, "target classes"],
    target_adversary: Float[Tensor, "target classes"],
    margin: float = 4.0,
) -> Float[Tensor, ""]:
    """Margin * E[-log p_s'(h_s)] + E[-log(1 - p_t'(h_t))]: what the adversarial classifier minimises.

    h are the classes that the main classifier predicts, p' the adversary's probabilities. The adversary agrees with the
    main classifier on the source and disagrees on the target; features behind a gradient reversal prevent that.
    Source: Zhang et al., "Bridging theory and algorithm for domain adaptation" (MDD), ICML 2019, eq. 29 and 30.

    >>> one, other = torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])
    >>> float(margin_disparity(one, one, one, other).abs())  # agrees on the source only
    0.0
    """
    agreement = torch.nn.functional.cross_entropy(source_adversary, source.argmax(1))
    chosen = target_adversary.softmax(1).gather(1, target.argmax(1, keepdim=True))
    return margin * agreement - torch.log((1 - chosen + 1e-6).clamp(max=1.0)).mean()


@check_shapes
def nuclear_wasserstein(
    source: Float[Tensor, "source classes"], target: Float[Tensor, "target classes"]
) -> Float[Tensor, ""]:
    """||P_t||_* / n_t - ||P_s||_* / n_s, with P the matrices of predictions, given their logits.

    The classifier minimises it behind a gradient reversal at the features: it acts as its own critic.
    Source: Chen et al., "Reusing the task-specific classifier as a discriminator" (DALN), CVPR 2022, eq. 9.

    >>> sure, unsure = 99 * torch.eye(2), torch.zeros(2, 2)
    >>> round(float(nuclear_wasserstein(sure, unsure)), 4)  # 1 / 2 - 2 / 2
    -0.5
    """
    norms = [torch.linalg.matrix_norm(logits.softmax(1).float(), "nuc") / len(logits) for logits in (source, target)]
    return norms[1] - norms[0]  # type: ignore[no-any-return]


@check_shapes
def batch_spectral_penalty(features: Float[Tensor, "n features"], largest: int = 1) -> Float[Tensor, ""]:
    """Sum of the squares of the `largest` singular values of a batch of features of one domain.

    Source: Chen et al., "Transferability vs. discriminability: batch spectral penalization" (BSP), ICML 2019, eq. 7.

    >>> float(batch_spectral_penalty(torch.tensor([[3.0, 0.0], [0.0, 2.0]])))
    9.0
    """
    return torch.linalg.svdvals(features.float())[:largest].square().sum()  # type: ignore[no-any-return]


@check_shapes
def stepwise_feature_norm(features: Float[Tensor, "n features"], step: float = 1.0) -> Float[Tensor, ""]:
    """E (|f| - (|f|_before + step))^2: feature norms grow by a step in every update.

    Source: Xu et al., "Larger norm more transferable" (AFN), ICCV 2019, eq. 8.

    >>> features = torch.tensor([[3.0, 4.0]])
    >>> float(stepwise_feature_norm(features, step=2.0))  # the square of the step
    4.0
    """
    norms = features.float().norm(dim=1)
    return (norms - (norms.detach() + step)).square().mean()  # type: ignore[no-any-return]
