"""Validators: label-free scores of a model, higher is better. Pure functions of logits and features.

Source labels may take part, as they are given; target labels cannot: `ValidatorInputs` has no place for them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class ValidatorInputs:
    """What a model gives for some images of both domains; all that a validator sees."""

    target_logits: Float[Tensor, "target classes"]
    target_features: Float[Tensor, "target features"]
    view_logits: Float[Tensor, "target classes"]  # of the same target images, each slightly changed
    source_logits: Float[Tensor, "source classes"]  # of source images that were not trained on
    source_features: Float[Tensor, "source features"]
    source_labels: Int64[Tensor, " source"]
    trained_features: Float[Tensor, "trained features"]  # of source images that were


def entropy(probabilities: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy in nats."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)


def target_entropy(evidence: ValidatorInputs) -> float:
    """-E H(p): confident predictions score high, be they right or wrong, and a collapse to one class highest."""
    return -float(entropy(_probabilities(evidence.target_logits)).mean())


def information_maximisation(evidence: ValidatorInputs) -> float:
    """H(E p) - E H(p), in nats: confident predictions, spread over the classes. Between 0 and ln(classes).

    Source: Shi and Sha, "Information-theoretical learning of discriminative clusters for unsupervised domain
    adaptation", ICML 2012.
    """
    probabilities = _probabilities(evidence.target_logits)
    return float(entropy(probabilities.mean(0)) - entropy(probabilities).mean())


def nuclear_norm(evidence: ValidatorInputs) -> float:
    """||P||_* / n, the sum of the singular values of the n x classes matrix of probabilities (BNM).

    Source: Cui et al., "Towards discriminability and diversity: batch nuclear-norm maximization", CVPR 2020, eq. 8.
    """
    probabilities = _probabilities(evidence.target_logits)
    return float(torch.linalg.matrix_norm(probabilities, "nuc")) / len(probabilities)


def soft_neighbourhood_density(evidence: ValidatorInputs) -> float:
    """Mean entropy of softmax(cosine / 0.05) over the other target images: dense neighbourhoods score high (SND).

    Source: Saito et al., "Tune it the right way: unsupervised validation of domain adaptation via soft neighborhood
    density", ICCV 2021, eq. 2 to 4. One image has no neighbours: 0.
    """
    features = F.normalize(evidence.target_features.float(), dim=1)
    if len(features) < 2:
        return 0.0
    similarities = features @ features.T / 0.05
    similarities.fill_diagonal_(-torch.inf)
    return float(entropy(similarities.softmax(1)).mean())


def class_ami(evidence: ValidatorInputs) -> float:
    """Adjusted mutual information between predicted classes and k-means clusters of the target features.

    As many clusters as classes. At most 1, and about 0 for clusters that say nothing of the predictions; fewer distinct
    images than classes cannot be clustered so: 0. Source: Musgrave et al., "Three new validators and a large-scale
    benchmark ranking for unsupervised domain adaptation", 2022, section 3.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    features, classes = evidence.target_features.float().numpy(), evidence.target_logits.shape[1]
    if len(np.unique(features, axis=0)) < classes:
        return 0.0
    clusters = KMeans(classes, n_init=1, random_state=0).fit_predict(features)
    return float(adjusted_mutual_info_score(evidence.target_logits.argmax(1).numpy(), clusters))


def mano(evidence: ValidatorInputs) -> float:
    """(mean over images and classes of p^4)^(1/4): confidence, with most weight on the sure images.

    Source: Xie et al., "MaNo: exploiting matrix norm for unsupervised accuracy estimation under distribution shifts",
    NeurIPS 2024, eq. 6, with p the softmax.
    """
    return float(_probabilities(evidence.target_logits).pow(4).mean().pow(0.25))


def deep_embedded_validation(evidence: ValidatorInputs) -> float:
    """The negative importance-weighted risk on the source, with a control variate (DEV).

    -(E[w l] + eta E[w] - eta) with l the cross-entropy of held-out source images, w = p(target) / p(source) x trained /
    target from a logistic regression that tells trained source features from target ones, and eta = -cov(w l, w) /
    var(w), which leaves the risk unbiased and lowers its variance.
    Source: You et al., "Towards accurate model selection in deep unsupervised domain adaptation", ICML 2019, alg. 1.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    trained, target = evidence.trained_features.double(), evidence.target_features.double()
    both = torch.cat([trained, target])
    mean, scale = both.mean(0), both.std(0, correction=0).clamp_min(1e-6)
    is_target = np.r_[np.zeros(len(trained)), np.ones(len(target))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weights that are almost the best will do
        domain = LogisticRegression(solver="newton-cholesky").fit(((both - mean) / scale).numpy(), is_target)
    source = ((evidence.source_features.double() - mean) / scale).numpy()
    odds = torch.from_numpy(domain.decision_function(source)).clamp(max=20).exp()
    weights = odds * len(trained) / len(target)
    weighted = weights * F.cross_entropy(evidence.source_logits.double(), evidence.source_labels, reduction="none")
    variance = weights.var(correction=0)
    covariance = ((weighted - weighted.mean()) * (weights - weights.mean())).mean()
    eta = -covariance / variance if variance > 0 else torch.zeros(())
    return -float(weighted.mean() + eta * weights.mean() - eta)


def source_accuracy(evidence: ValidatorInputs) -> float:
    """The share of held-out source images that are right: says nothing of the target, and is what one had before."""
    return float((evidence.source_logits.argmax(1) == evidence.source_labels).double().mean())


def coverage(evidence: ValidatorInputs, threshold: float = 0.9) -> float:
    """The share of target images whose top probability is at least the threshold."""
    return float((_probabilities(evidence.target_logits).amax(1) >= threshold).double().mean())


def augmentation_consistency(evidence: ValidatorInputs) -> float:
    """The share of target images that keep their predicted class when they are slightly changed."""
    return float((evidence.target_logits.argmax(1) == evidence.view_logits.argmax(1)).double().mean())


def kept_information(shares: Sequence[float], consistency: float) -> float:
    """A lower bound on the mutual information between predictions on images and on their changed views, in nats.

    H(shares) - h(e) - e ln(classes - 1) with `shares` of the predicted classes, e = 1 - `consistency` the share of
    predictions that change, and h the binary entropy (Fano's inequality): low for predictions that do not last, and for
    predictions that are all the same.
    """
    changed = 1 - consistency
    predicted, lasting = (torch.tensor(values, dtype=torch.float64) for values in (shares, (changed, consistency)))
    return float(entropy(predicted) - entropy(lasting)) - changed * math.log(max(len(shares) - 1, 1))


def combine(information: float, shares: Sequence[float], consistency: float, source: float) -> float:
    """`combined` from its parts: information maximisation, predicted shares, consistency, source accuracy."""
    kept = kept_information(shares, consistency)
    return (information + kept) / math.log(max(len(shares), 2)) + source


def combined(evidence: ValidatorInputs) -> float:
    """(information maximisation + kept information) / ln(classes) + source accuracy; between 3 and about -1.

    Sure predictions spread over the classes, that survive a slight change, by a model that has not lost the source.
    Like the ACM score (information maximisation + consistency + source accuracy), with Fano's bound in the place of
    consistency, which is perfect where all predictions are the same.
    """
    predicted, classes = evidence.target_logits.argmax(1), evidence.target_logits.shape[1]
    shares: list[float] = (torch.bincount(predicted, minlength=classes).double() / len(predicted)).tolist()
    parts = augmentation_consistency(evidence), source_accuracy(evidence)
    return combine(information_maximisation(evidence), shares, *parts)


def _probabilities(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    return logits.double().softmax(1)


VALIDATORS: dict[str, Callable[[ValidatorInputs], float]] = {
    "combined": combined,
    "information_maximisation": information_maximisation,
    "target_entropy": target_entropy,
    "nuclear_norm": nuclear_norm,
    "soft_neighbourhood_density": soft_neighbourhood_density,
    "class_ami": class_ami,
    "mano": mano,
    "deep_embedded_validation": deep_embedded_validation,
    "source_accuracy": source_accuracy,
    "coverage": coverage,
    "augmentation_consistency": augmentation_consistency,
}
DEFAULT_VALIDATOR = "combined"  # see results/validators.json


def scores(evidence: ValidatorInputs) -> dict[str, float]:
    """Every validator's score."""
    return {name: validator(evidence) for name, validator in VALIDATORS.items()}
