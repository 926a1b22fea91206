"""Losses on target predictions: confident, spread over the classes, not confused."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mutualign.nn.shapes import check_shapes


@check_shapes
def entropy(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """Shannon entropy of softmax(logits) of each row, in nats.

    >>> round(float(entropy(torch.zeros(1, 2))), 4)
    0.6931
    """
    log_probabilities = logits.log_softmax(1)
    return -(log_probabilities.exp() * log_probabilities).sum(1)


@check_shapes
def entropy_minimisation(logits: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """E H(p): the mean entropy of the predictions, in nats.

    Source: Grandvalet and Bengio, "Semi-supervised learning by entropy minimization", NeurIPS 2004, eq. 4.

    >>> round(float(entropy_minimisation(torch.zeros(4, 2))), 4)
    0.6931
    """
    return entropy(logits).mean()


@check_shapes
def information_maximisation(
    logits: Float[Tensor, "n classes"], prior: Float[Tensor, " classes"] | None = None
) -> Float[Tensor, ""]:
    """E H(p) - H(E p): the negative mutual information between images and predicted labels, in nats.

    Confident predictions lower it, and so do predictions that are spread over the classes. Between -ln(classes) and 0.
    With the classes' frequencies q as `prior`, predictions are spread like these: E H(p) + KL(E p || q) - ln(classes),
    the same for uniform ones. No frequency may be 0.
    Source: Shi and Sha, ICML 2012; as in SHOT, Liang et al., ICML 2020, eq. 3. The prior: Krause, Perona and Gomes,
    "Discriminative clustering by regularized information maximization", NeurIPS 2010.

    >>> float(information_maximisation(torch.zeros(4, 3)))
    0.0
    """
    count = torch.full((), float(len(logits)), device=logits.device)  # a copy from the CPU would wait for a GPU
    mean = logits.log_softmax(1).logsumexp(0) - count.log()
    relative = mean if prior is None else mean - torch.log(prior * len(prior))
    return entropy(logits).mean() + (mean.exp() * relative).sum()


@check_shapes
def batch_nuclear_norm(logits: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """-||P||_* / n: the negative sum of the singular values of the matrix of predictions.

    Minimising it makes predictions confident and diverse. Between -sqrt(min(n, classes) / n) and 0. The authors' code
    divides by min(n, classes) instead of n.
    Source: Cui et al., "Towards discriminability and diversity" (BNM), CVPR 2020, eq. 8.

    >>> float(batch_nuclear_norm(99 * torch.eye(2)))  # certain, and both classes occur
    -1.0
    """
    return -torch.linalg.matrix_norm(logits.softmax(1).float(), "nuc") / len(logits)  # type: ignore[no-any-return]


@check_shapes
def class_confusion(logits: Float[Tensor, "n classes"], temperature: float = 2.5) -> Float[Tensor, ""]:
    """Mean confusion between pairs of classes in the predictions: 0 if all are certain.

    With p = softmax(logits / temperature), rows weighted by 1 + exp(-H(p)), the class correlation P^T W P is normalised
    by its row sums; the loss is the sum of its entries off the diagonal over the number of classes.
    Source: Jin et al., "Minimum class confusion for versatile domain adaptation" (MCC), ECCV 2020, eq. 1 to 6.

    >>> round(float(class_confusion(torch.zeros(6, 3))), 4)
    0.6667
    """
    n, classes = logits.shape
    scaled = logits / temperature
    probabilities = scaled.softmax(1)
    weights = 1 + torch.exp(-entropy(scaled).detach())
    weights = n * weights / weights.sum()
    confusion = (probabilities * weights[:, None]).T @ probabilities
    confusion = confusion / confusion.sum(1, keepdim=True).clamp_min(torch.finfo(confusion.dtype).tiny)
    return (confusion.sum() - confusion.trace()) / classes
