"""Adaptation in the style of scikit-learn: fit, predict, transform, score."""

from mutualign.estimator.adapter import DomainAdapter
from mutualign.estimator.alerts import AlarmWarning, NoTargetWarning
from mutualign.estimator.scorer import label_free_score

__all__ = ["AlarmWarning", "DomainAdapter", "NoTargetWarning", "label_free_score"]
