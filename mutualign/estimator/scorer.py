"""A scorer for scikit-learn's searches that needs no labels."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def label_free_score(estimator: Any, X: Any = None, y: Any = None) -> float:  # noqa: N803
    """The score of a fitted DomainAdapter, or of a Pipeline that ends in one, that was taken without target labels.

    A scorer for GridSearchCV: neither X nor y is looked at, so each fit should see all rows. With arrays as of skada:

        sklearn.set_config(enable_metadata_routing=True)
        adapter = DomainAdapter().set_fit_request(sample_domain=True)
        every = np.arange(len(X))
        search = GridSearchCV(adapter, {"recipe": ["dann", "mani"]}, scoring=label_free_score, cv=[(every, every)])
        search.fit(X, y, sample_domain=sample_domain)

    No label-free score is always right (results/validators.json): look at `alarms_` too.
    """
    adapter = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    check_is_fitted(adapter)
    return float(adapter.label_free_score_)
