"""DomainAdapter among scikit-learn's tools: pickles, clones, pipelines, searches."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutualign import DomainAdapter
from mutualign.errors import MutualignError
from mutualign.estimator import label_free_score
from mutualign.runs.folder import RunFolder
from tests.estimator.conftest import SHORT, both_domains, clouds, short

pytestmark = pytest.mark.filterwarnings("ignore::mutualign.estimator.AlarmWarning")


def test_a_pickled_adapter_predicts_the_same_and_a_clone_has_no_weights(fitted):
    _, _, target, _ = clouds()
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - made here
    np.testing.assert_array_equal(again.predict_proba(target), fitted.predict_proba(target))
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        label_free_score(copy)


def test_it_shows_itself_without_a_warning(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "DomainAdapter" in fitted._repr_html_()
        assert "DomainAdapter" in make_pipeline(StandardScaler(), DomainAdapter())._repr_html_()


def test_a_pipeline_scales_both_domains_and_passes_the_domains_on():
    _, _, target, y_target = clouds()
    everything, masked, domains = both_domains()
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), DomainAdapter(overrides=["stages.0.epochs=2"]))
        pipeline.fit(1000 * everything, masked, sample_domain=domains)
        assert pipeline.score(1000 * target, y_target) > 0.9
        assert label_free_score(pipeline) == pipeline[-1].label_free_score_
    pipeline.fit(1000 * everything, masked, domainadapter__sample_domain=domains)  # without routing
    assert pipeline.score(1000 * target, y_target) > 0.9


def test_a_search_over_recipes_and_overrides_takes_the_best_label_free_score():
    everything, masked, domains = both_domains()
    every = np.arange(120)
    unlearnt = ("stages.0.epochs=1", "stages.0.optim.lr=1e-9")
    learnt = ("stages.0.epochs=2", "stages.0.epoch_steps=60", "stages.0.optim.lr=1e-2")
    with sklearn.config_context(enable_metadata_routing=True):
        grid = {"recipe": ["source_only", "dann"], "overrides": [unlearnt, learnt]}
        search = GridSearchCV(DomainAdapter(), grid, scoring=label_free_score, cv=[(every, every)])
        search.fit(everything, masked, sample_domain=domains)
    assert search.best_params_["overrides"] == learnt
    assert search.best_score_ == search.best_estimator_.label_free_score_


def test_cross_validation_counts_no_masked_label_as_an_error():
    everything, masked, domains = both_domains()
    overrides = ("stages.0.epochs=2", "stages.0.epoch_steps=60", "stages.0.optim.lr=1e-2")
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            short(overrides=overrides),
            everything,
            masked,
            cv=[(np.r_[0:40, 60:120], np.r_[40:120])],
            params={"sample_domain": domains},
        )
    assert scores[0] > 0.8  # the 20 source rows; with 60 masked rows as errors, 0.25 at most


def test_a_search_with_a_run_folder_says_what_to_write(tmp_path):
    source, y, target, _ = clouds()
    adapter = short(run_folder=tmp_path / "run").fit(source, y, target)
    with pytest.raises(ValueError, match=r"already holds a run\n  hint: (.|\n)*set_params\(run_folder="):
        clone(adapter).fit(source, y, target)


def test_a_fit_that_failed_at_once_leaves_its_run_folder_to_the_next(tmp_path):
    source, y, target, _ = clouds()
    with pytest.raises(MutualignError, match="finite"):
        short(overrides=(*SHORT, "stages.0.optim.lr=1e30"), run_folder=tmp_path / "run").fit(source, y, target)
    assert (tmp_path / "run" / "config.toml").exists()
    short(run_folder=tmp_path / "run").fit(source, y, target)
    assert RunFolder.open(tmp_path / "run").is_complete
