"""Validators of the source: accuracy on held-out source images, plain and weighted toward the target."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F

from mutualign.evaluation.validators.base import ValidatorInputs, register_validator


@register_validator("source_accuracy")
def source_accuracy(inputs: ValidatorInputs) -> float:
    """Share of held-out source images that are classified correctly; the score to beat, as it ignores the target."""
    return float((inputs.source_logits.argmax(1) == inputs.source_labels).double().mean())


@register_validator("deep_embedded_validation")
def deep_embedded_validation(inputs: ValidatorInputs) -> float:
    """Negative importance-weighted source risk with a control variate (DEV).

    -(E[w l] + eta E[w] - eta). l is the cross-entropy of held-out source images. w = p(target) / p(source) x trained /
    target comes from a logistic regression between trained source features and target features. eta = -cov(w l, w) /
    var(w) keeps the risk unbiased and lowers its variance.
    Source: You et al., "Towards accurate model selection in deep unsupervised domain adaptation", ICML 2019, alg. 1.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    trained, target = inputs.trained_features.double(), inputs.target_features.double()
    both = torch.cat([trained, target])
    mean, scale = both.mean(0), both.std(0, correction=0).clamp_min(1e-6)
    is_target = np.r_[np.zeros(len(trained)), np.ones(len(target))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly optimal weights are good enough
        domain = LogisticRegression(solver="newton-cholesky").fit(((both - mean) / scale).numpy(), is_target)
    source = ((inputs.source_features.double() - mean) / scale).numpy()
    odds = torch.from_numpy(domain.decision_function(source)).clamp(max=20).exp()
    weights = odds * len(trained) / len(target)
    weighted = weights * F.cross_entropy(inputs.source_logits.double(), inputs.source_labels, reduction="none")
    apart, variance = weights - weights.mean(), weights.var(correction=0)
    varied = variance.sqrt() > 1e-9 * weights.mean()  # more than rounding
    eta = -(weighted * apart).mean() / variance if varied else torch.zeros(())
    return -float(weighted.mean() + eta * weights.mean() - eta)
