"""A scorer for scikit-learn's searches that needs no labels."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def label_free_score(estimator: Any, X: Any = None, y: Any = None) -> float:  # noqa: N803
    """Return the label-free score of a fitted DomainAdapter, or of a Pipeline that ends in one.

    A scorer for GridSearchCV: neither X nor y is used, so each fit should see all rows. With arrays as in skada:

        sklearn.set_config(enable_metadata_routing=True)
        every = np.arange(len(X))
        grid = {"recipe": ["dann", "mani"]}
        search = GridSearchCV(DomainAdapter(), grid, scoring=label_free_score, cv=[(every, every)])
        search.fit(X, y, sample_domain=sample_domain)

    No label-free score is always right (results/blind.json): look at `alarms_` too.
    """
    adapter = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    check_is_fitted(adapter)
    return float(adapter.label_free_score_)
