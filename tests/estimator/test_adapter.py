from __future__ import annotations

import doctest
import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutualign import DomainAdapter
from mutualign.errors import MutualignError
from mutualign.estimator import AlarmWarning, NoTargetWarning, label_free_score
from mutualign.estimator import adapter as adapter_module
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.runs.folder import RunFolder
from mutualign.training.setup import build_classifier
from tests.conftest import make_tiny_task

SHORT = ("stages.0.epochs=2", "stages.0.epoch_steps=5")
pytestmark = pytest.mark.filterwarnings("ignore::mutualign.estimator.AlarmWarning")  # what is so short is not learnt


def clouds(n=60, features=4, seed=0):
    """Vectors of three classes, and the same a little elsewhere: X_source, y_source, X_target, y_target."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, features)) * 4
    y, y_target = rng.integers(3, size=n), rng.integers(3, size=n)
    noise = rng.normal(size=(2, n, features))
    return centres[y] + noise[0], y, centres[y_target] + noise[1] + 0.5, y_target


def short(recipe="dann", overrides=SHORT, **params):
    return DomainAdapter(recipe, overrides=overrides, **params)


def same_weights(one, other):
    assert one.weights_.keys() == other.weights_.keys()
    return all(torch.equal(one.weights_[name], other.weights_[name]) for name in one.weights_)


@pytest.fixture(scope="module")
def tiny_images():
    """Grey source images, inverted and coloured target images, 12x12, with labels: as four arrays."""
    task = make_tiny_task()
    source, target = task.source_train, task.target_train
    labels = target.hidden_labels
    return source.images.pixels.numpy(), source.labels.numpy(), target.images.pixels.numpy(), labels.numpy()


# Both ways of giving the domains --------------------------------------------------------------------------------------


def test_domains_as_three_arrays_or_by_sample_domain_give_the_same_weights():
    source, y, target, _ = clouds()
    by_arrays = short().fit(source, y, target)
    everything, masked = np.concatenate([source, target]), np.concatenate([y, np.full(len(target), -1)])
    for domains in (np.r_[np.full(60, 1), np.full(60, -2)], torch.tensor([0] * 60 + [-1] * 60), [3] * 60 + [-7] * 60):
        assert same_weights(short().fit(everything, masked, sample_domain=domains), by_arrays)


def test_target_labels_are_not_read_be_they_noise_or_none():
    source, y, target, y_target = clouds()
    everything, domains = np.concatenate([source, target]), np.r_[np.ones(60, int), np.full(60, -2)]
    true = short().fit(everything, np.r_[y, y_target], sample_domain=domains)
    noise = short().fit(everything, np.r_[y, np.arange(100, 160)], sample_domain=domains)
    nothing = short().fit(everything, np.array([*y, *[None] * 60], dtype=object), sample_domain=domains)
    assert same_weights(true, noise)
    assert same_weights(true, nothing)
    assert true.label_free_score_ == noise.label_free_score_
    assert noise.classes_.tolist() == [0, 1, 2]


def test_the_target_takes_part():
    source, y, target, _ = clouds()
    assert not same_weights(short().fit(source, y, target), short().fit(source, y, target + 1))


def test_without_a_target_it_warns_and_is_trained_on_the_source():
    source, y, _, _ = clouds()
    with pytest.warns(NoTargetWarning, match="nothing is adapted"):
        alone = short().fit(source, y)
    assert same_weights(alone, short().fit(source, y, source))
    with pytest.warns(NoTargetWarning):
        assert same_weights(alone, short().fit(source, y, sample_domain=np.zeros(60, int)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X_target": np.ones((3, 4)), "sample_domain": [1] * 30 + [-2] * 30}, "not as both"),
        ({"sample_domain": [-2] * 60}, "no source"),
        ({"sample_domain": [1] * 59}, "an integer a row of X, 60 in all; got 59"),
        ({"sample_domain": ["source"] * 60}, "an integer a row"),
        ({"X_target": np.ones((3, 5))}, "X has 5 features, but DomainAdapter is expecting 4 features"),
        ({"X_target": np.full((3, 4), np.nan)}, "X_target: Input X contains NaN"),
        ({"X_target": np.zeros((0, 4))}, "X_target: Found array with 0 sample"),
        ({"X_target": np.ones((3, 8, 8))}, "X has 2 axes and X_target 3(.|\n)*give both alike"),
    ],
)
def test_domains_that_make_no_sense_are_told(arguments, message):
    source, y, _, _ = clouds()
    with pytest.raises(ValueError, match=message):
        short().fit(source, y, **arguments)


# What it gives --------------------------------------------------------------------------------------------------------


def test_images_of_another_look_are_adapted_to(tiny_images):
    source, y, target, y_target = tiny_images
    settings = ("backbone=two_block_cnn", "stages.0.epochs=2", "stages.0.epoch_steps=30", "stages.0.learning_rate=4e-3")
    before = DomainAdapter("source_only", overrides=settings).fit(source, y, target)
    after = DomainAdapter(overrides=(*settings, "stages.0.batch_size=32")).fit(source, y, target)
    assert after.recipe_.name == "fast"
    assert before.score(target, y_target) < 0.6
    assert after.score(target, y_target) > 0.9
    assert label_free_score(after) > label_free_score(before)


def test_vectors_are_learnt_by_a_short_dann_unless_a_recipe_is_named():
    source, y, target, y_target = clouds()
    adapter = DomainAdapter(overrides=["stages.0.epochs=2"]).fit(source, y, target)
    assert (adapter.recipe_.name, adapter.recipe_.backbone) == ("dann", "mlp")
    assert adapter.score(target, y_target) > 0.8  # by chance a third
    with pytest.raises(ValueError, match=r"recipe fast turns and recolours images(.|\n)*image_shape"):
        DomainAdapter("fast").fit(source, y, target)


def test_probabilities_classes_and_features_belong_together():
    source, y, target, _ = clouds()
    adapter = short().fit(source, np.array(["cat", "dog", "eel"])[y], target)
    probabilities, features = adapter.predict_proba(target), adapter.transform(target)
    assert adapter.classes_.tolist() == ["cat", "dog", "eel"]
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert adapter.predict(target).tolist() == adapter.classes_[probabilities.argmax(1)].tolist()
    assert features.dtype == np.float32
    assert len(adapter.get_feature_names_out()) == features.shape[1]
    classifier = build_classifier(adapter.recipe_, adapter.shape_, 3)
    classifier.load_state_dict(adapter.weights_)
    logits = classifier.eval().head(torch.from_numpy(features))
    np.testing.assert_allclose(logits.softmax(1).detach(), probabilities, atol=1e-6)


def test_the_kept_epoch_is_the_one_with_the_best_label_free_score(tmp_path):
    source, y, target, _ = clouds()
    overrides = ("stages.0.epochs=4", "stages.0.epoch_steps=2", "stages.0.learning_rate=1e-2")
    scores = {}
    for epoch in ("selected", "last"):
        adapter = short(overrides=overrides, epoch=epoch, run_folder=tmp_path / epoch).fit(source, y, target)
        run = RunFolder.open(tmp_path / epoch)
        curve = [record["scores"][DEFAULT_VALIDATOR] for record in run.metrics()]
        scores[epoch] = adapter.label_free_score_
        assert adapter.result_ == run.result()
    assert scores == {"selected": max(curve), "last": curve[-1]}


def test_each_alarm_is_a_warning():
    source, y, target, _ = clouds()
    shuffled = np.random.default_rng(1).permutation(y)
    with pytest.warns(AlarmWarning, match="source is not learnt: .* labels do not belong") as caught:
        adapter = short().fit(source, shuffled, target)
    assert len(caught) == len(adapter.alarms_)


def test_numpy_torch_and_lists_strings_and_integers_are_the_same_to_it():
    source, y, target, _ = (values[:30] for values in clouds())
    reference = short().fit(source, y, target)
    for convert in (torch.tensor, np.ndarray.tolist):
        other = short().fit(convert(source), convert(y), convert(target))
        assert same_weights(reference, other)
        assert other.predict(convert(target)).tolist() == reference.predict(target).tolist()
        assert other.score(convert(source), convert(y)) == reference.score(source, y)
    assert same_weights(reference, short().fit(source, [f"class {label}" for label in y], target))


def test_flattened_images_are_the_images(tiny_images):
    source, y, target, _ = tiny_images
    settings = ("backbone=two_block_cnn", "stages.0.epochs=1")
    colour = np.repeat(source, 3, axis=3)
    whole = DomainAdapter("dann", overrides=settings).fit(colour, y, target)
    flat = DomainAdapter("dann", overrides=settings, image_shape=(12, 12, 3))
    flat.fit(colour.reshape(50, -1), y, target.reshape(50, -1))
    assert same_weights(whole, flat)
    assert flat.n_features_in_ == whole.n_features_in_ == 432
    assert whole.predict(source[..., 0]).tolist() == flat.predict(colour.reshape(50, -1)).tolist()  # grey is repeated
    with pytest.raises(ValueError, match=r"fitted on \(12, 12, 3\)"):
        whole.predict(target[:, :10])
    with pytest.raises(ValueError, match=r"rows of 432 values are no images of image_shape=\(12, 12, 1\)"):
        DomainAdapter(image_shape=(12, 12, 1)).fit(colour.reshape(50, -1), y)


@pytest.mark.parametrize("kind", ["U8", "complex64", "datetime64[s]"])
def test_images_that_are_no_numbers_are_told(tiny_images, kind):
    source, y, target, _ = tiny_images
    with pytest.raises(ValueError, match=r"X has values of type (.|\n)*  do       convert them"):
        short().fit(source.astype(int).astype(kind), y, target)
    with pytest.raises(ValueError, match="X_target: X has values of type"):
        short().fit(source, y, target.astype(int).astype(kind))


def test_images_too_small_for_the_backbone_leave_no_run_folder(tiny_images, tmp_path):
    source, y, target, _ = tiny_images
    adapter = DomainAdapter(run_folder=tmp_path / "run")
    with pytest.raises(MutualignError, match="it takes 12x12 or more"):
        adapter.fit(source[:, :8, :8], y, target[:, :8, :8])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epoch": "best"}, 'epoch is "selected" or "last"'),
        ({"overrides": "stages.0.epochs=1"}, r"do you mean \('stages.0.epochs=1',\)"),
        ({"validation_fraction": 1.0}, "validation_fraction is between 0 and 1, got 1.0"),
    ],
)
def test_parameters_are_checked_in_fit(params, message):
    source, y, target, _ = clouds()
    with pytest.raises(ValueError, match=message):
        DomainAdapter(**params).fit(source, y, target)


def test_one_class_and_single_images_of_classes_are_told():
    source, _, target, _ = clouds()
    with pytest.raises(ValueError, match='the source has 1 class, "only"'):
        short().fit(source, ["only"] * 60, target)
    with pytest.raises(ValueError, match="each class of the source has one image"):
        short().fit(source[:3], [0, 1, 2], target)


@pytest.mark.parametrize("recipe", ["source_only", "dann", "mani"])
def test_five_images_one_of_them_alone_in_its_class_and_one_target_image_will_do(recipe):
    source, _, target, _ = clouds()
    every_stage = SHORT if recipe != "mani" else (*SHORT, *(line.replace("0", "1", 1) for line in SHORT))
    adapter = short(recipe, every_stage).fit(source[:5], ["a", "a", "b", "b", "c"], target[:1])
    assert np.isfinite(adapter.predict_proba(target)).all()
    assert np.isfinite(adapter.label_free_score_)


def test_progress_is_shown_on_standard_error_only_if_asked_for(capsys):
    source, y, target, _ = clouds()
    short().fit(source, y, target)
    assert capsys.readouterr() == ("", "")
    short(verbose=True).fit(source, y, target)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition("  ")[0] for line in lines] == [f"dann: stage 1/1 (dann), epoch {i}/2" for i in (1, 2)]


def test_the_seed_decides():
    source, y, target, _ = clouds()
    states = [short(random_state=state).fit(source, y, target) for state in (3, 3, 4, np.random.RandomState(3))]
    assert same_weights(states[0], states[1])
    assert not same_weights(states[0], states[2])
    assert states[3].result_["seed"] == np.random.RandomState(3).randint(2**31 - 1)


# Among scikit-learn's ------------------------------------------------------------------------------------------------


def test_a_pickled_adapter_predicts_the_same():
    source, y, target, _ = clouds()
    adapter = short().fit(source, y, target)
    again = pickle.loads(pickle.dumps(adapter))  # noqa: S301
    np.testing.assert_array_equal(again.predict_proba(target), adapter.predict_proba(target))


def test_a_clone_has_the_parameters_and_no_weights():
    source, y, target, _ = clouds()
    adapter = short(epoch="last").fit(source, y, target)
    copy = clone(adapter)
    assert copy.get_params() == adapter.get_params()
    with pytest.raises(NotFittedError):
        label_free_score(copy)


def test_a_pipeline_scales_both_domains_and_passes_the_domains_on():
    source, y, target, y_target = clouds()
    everything, domains = 1000 * np.concatenate([source, target]), np.r_[np.ones(60, int), np.full(60, -2)]
    with sklearn.config_context(enable_metadata_routing=True):
        adapter = DomainAdapter(overrides=["stages.0.epochs=2"]).set_fit_request(sample_domain=True)
        pipeline = make_pipeline(StandardScaler(), adapter)
        pipeline.fit(everything, np.r_[y, np.full(60, -1)], sample_domain=domains)
        assert pipeline.score(1000 * target, y_target) > 0.9
        assert label_free_score(pipeline) == pipeline[-1].label_free_score_


def test_a_search_over_recipes_and_overrides_takes_the_best_label_free_score():
    source, y, target, _ = clouds()
    everything, masked = np.concatenate([source, target]), np.r_[y, np.full(60, -1)]
    domains, every = np.r_[np.ones(60, int), np.full(60, -2)], np.arange(120)
    unlearnt = ("stages.0.epochs=1", "stages.0.learning_rate=1e-9")
    learnt = ("stages.0.epochs=2", "stages.0.epoch_steps=60", "stages.0.learning_rate=1e-2")
    with sklearn.config_context(enable_metadata_routing=True):
        adapter = DomainAdapter().set_fit_request(sample_domain=True)
        grid = {"recipe": ["source_only", "dann"], "overrides": [unlearnt, learnt]}
        search = GridSearchCV(adapter, grid, scoring=label_free_score, cv=[(every, every)])
        search.fit(everything, masked, sample_domain=domains)
    assert search.best_params_["overrides"] == learnt
    assert search.best_score_ == search.best_estimator_.label_free_score_


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(adapter_module) == (0, 8)


def test_importing_the_package_does_not_import_the_estimator():
    code = (
        "import sys, mutualign; assert 'sklearn' not in sys.modules and 'lightning_fabric' not in sys.modules;"
        "mutualign.DomainAdapter; assert 'sklearn' in sys.modules; assert 'DomainAdapter' in mutualign.__all__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
