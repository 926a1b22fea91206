"""Label shift: whether target predictions differ from the source's only in how frequent classes are."""

from __future__ import annotations

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int64
from torch import Tensor

FEW = 8  # images of a predicted class, in either domain, that are too few to compare


def same_within_classes(source: Float[Tensor, "n classes"], target: Float[Tensor, "m classes"]) -> float | None:
    """Return the p-value of the hypothesis that images predicted as one class look alike in both domains.

    If only class frequencies differ and errors are rare, the classifier is as sure of the images of a predicted class
    in the target as in the source. (With many errors it need not be: a predicted class is then a mixture of true ones,
    in other proportions.) For every class, the margins between the two largest logits are compared by the two-sample
    test of Kolmogorov and Smirnov; the smallest p-value is multiplied by the number of classes that were compared
    (Bonferroni). None if no class has enough images in both domains.
    """
    (sure, predicted), (target_sure, target_predicted) = (_margins(logits) for logits in (source, target))
    found = []
    for label in range(source.shape[1]):
        ours, theirs = sure[predicted == label], target_sure[target_predicted == label]
        if min(len(ours), len(theirs)) >= FEW:
            found.append(float(scipy.stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue))
    return min(1.0, min(found) * len(found)) if found else None


def estimated_shares(
    source: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], target: Float[Tensor, "m classes"]
) -> list[float] | None:
    """Estimate the shares of the true classes in the target, if only these differ (BBSE).

    The non-negative solution of C w = q by least squares, with C the joint frequencies of predicted and true classes
    on held-out source images, and q the frequencies of predicted classes in the target; w times the source's shares,
    scaled to sum 1. None if a class has no held-out source image: nothing is known about how it is predicted.
    Source: Lipton et al., "Detecting and correcting for label shift with black box predictors", ICML 2018.
    """
    classes = source.shape[1]
    joint = torch.bincount(source.argmax(1) * classes + labels, minlength=classes**2).view(classes, classes).double()
    if not joint.any(0).all():
        return None
    joint = joint / len(labels)
    predicted = torch.bincount(target.argmax(1), minlength=classes).double() / len(target)
    weights, _ = scipy.optimize.nnls(joint.numpy(), predicted.numpy())
    shares = weights * joint.sum(0).numpy()
    return [float(share) for share in shares / max(np.sum(shares), 1e-12)]


def _margins(logits: Float[Tensor, "n classes"]) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
    """Difference of the two largest logits, and the predicted class."""
    top = logits.double().topk(min(2, logits.shape[1]), dim=1)
    return top.values[:, 0] - top.values[:, -1], top.indices[:, 0]
