"""DomainAdapter: both ways of giving domains, what it accepts, predicts and scores."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError

import mutualign
from mutualign import DomainAdapter
from mutualign.cli.console import PlainConsole
from mutualign.cli.inspect import Show
from mutualign.cli.predict import Predict
from mutualign.data.task import REFIT
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError
from mutualign.estimator import AlarmWarning, NoTargetWarning, label_free_score
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.export.exporter import export_run
from mutualign.report.html import write_report
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.labelling import load_task_of
from mutualign.runs.next_steps import current_verdict, next_steps
from mutualign.runs.status import status_of
from mutualign.training.setup import build_classifier
from tests.estimator.conftest import SHORT, both_domains, clouds, same_weights, short

pytestmark = pytest.mark.filterwarnings("ignore::mutualign.estimator.AlarmWarning")  # what is so short is not learnt

# Both ways of giving the domains --------------------------------------------------------------------------------------


def test_domains_as_three_arrays_or_by_sample_domain_give_the_same_weights(fitted):
    everything, masked, _ = both_domains()
    for domains in (torch.tensor([0] * 60 + [-1] * 60), [3] * 60 + [-7] * 60):
        assert same_weights(short().fit(everything, masked, sample_domain=domains), fitted)


def test_target_labels_are_not_read_be_they_noise_or_none(fitted):
    everything, masked, domains = both_domains()
    noise = short().fit(everything, np.r_[masked[:60], np.arange(100, 160)], sample_domain=domains)
    nothing = short().fit(everything, [*masked[:60], *[None] * 60], sample_domain=domains)
    assert same_weights(fitted, noise)
    assert same_weights(fitted, nothing)
    assert fitted.label_free_score_ == noise.label_free_score_
    assert noise.classes_.tolist() == [0, 1, 2]


def test_a_fit_that_fails_leaves_nothing_that_predicts():
    source, y, target, _ = clouds()
    adapter = short(overrides=("stages.0.epochs=1",)).fit(source, y, target)
    with pytest.raises(ValueError, match="the source has 1 class"):
        adapter.fit(source, ["only"] * 60, target)
    with pytest.raises(NotFittedError):
        adapter.predict(target)


def test_without_a_target_it_warns_and_is_trained_on_the_source(fitted):
    source, y, _, _ = clouds()
    with pytest.warns(NoTargetWarning, match="nothing is adapted"):
        alone = short().fit(source, y)
    assert same_weights(alone, short().fit(source, y, source))
    assert not same_weights(alone, fitted)  # the target takes part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X_target": np.ones((3, 4)), "sample_domain": [1] * 30 + [-2] * 30}, "not as both"),
        ({"sample_domain": [-2] * 60}, "no source"),
        ({"sample_domain": [1] * 59}, "one integer per row of X, 60 in all; got 59"),
        ({"sample_domain": ["source"] * 60}, "one integer per row"),
        ({"X_target": np.ones((3, 5))}, "X has 5 features, but DomainAdapter is expecting 4 features"),
        ({"X_target": np.full((3, 4), np.nan)}, "X_target: Input X contains NaN"),
        ({"X_target": np.ones((3, 8, 8))}, "X has 2 axes and X_target 3(.|\n)*give both in the same form"),
        ({"y": ["only"] * 60}, 'the source has 1 class, "only"'),
        ({"y": [1, "y", 2.5] * 20}, "y mixes text and other values, such as 'y' and 1"),
        ({"y": np.arange(60).astype("datetime64[D]")}, "y has dates or times"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    source, y, _, _ = clouds()
    with pytest.raises(ValueError, match=message):
        short().fit(**{"X": source, "y": y, "X_target": None if "sample_domain" in arguments else source, **arguments})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"recipe": 3}, "recipe is a name"),
        ({"overrides": "stages.0.epochs=1"}, r"do you mean \('stages.0.epochs=1',\)"),
        ({"overrides": [3]}, "overrides is a tuple or list of assignments"),
        ({"epoch": "best"}, 'epoch is "selected" or "last", got'),
        ({"validation_fraction": 1.0}, "validation_fraction is between 0 and 1, got '1.0'"),
        ({"validation_fraction": "a"}, "validation_fraction is between 0 and 1, got 'a'"),
        ({"image_shape": 16}, r"image_shape is \(height, width, channels\)"),
        ({"image_shape": (2, 2)}, r"image_shape is \(height, width, channels\)"),
        ({"accelerator": "tpu"}, 'accelerator is "auto" or "cpu"'),
        ({"run_folder": 3}, "run_folder is a path or None"),
        ({"random_state": "a"}, "'a' cannot be used to seed"),
    ],
)
def test_parameters_are_checked_in_fit(params, message):
    source, y, target, _ = clouds()
    with pytest.raises(ValueError, match=message):
        DomainAdapter(**params).fit(source, y, target)


@contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64  # as it was set
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def set_device():
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_device(None)


STATES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": double_precision,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "device": partial(torch.device, "meta"),
    "default device": set_device,
}


@pytest.mark.parametrize("state", STATES)
def test_a_fit_is_the_same_whatever_state_torch_is_in(fitted, state):
    source, y, target, _ = clouds()
    given = torch.tensor(source)
    with STATES[state]():
        adapter = short().fit(given, y, target)
        probabilities = adapter.predict_proba(target)
    assert same_weights(adapter, fitted)
    np.testing.assert_array_equal(probabilities, fitted.predict_proba(target))


# What it gives --------------------------------------------------------------------------------------------------------


def test_images_of_another_look_are_adapted_to(tiny_images):
    source, y, target, y_target = tiny_images
    settings = ("backbone=two_block_cnn", "stages.0.epochs=2", "stages.0.epoch_steps=30", "stages.0.optim.lr=4e-3")
    before = DomainAdapter("source_only", overrides=settings).fit(source, y, target)
    after = DomainAdapter(overrides=(*settings, "stages.0.batch_size=32")).fit(source, y, target)
    assert after.recipe_.stages[0].method == "mutual_align"
    assert before.score(target, y_target) < 0.6
    assert after.score(target, y_target) > 0.9
    assert label_free_score(after) > label_free_score(before)


def test_vectors_are_learnt_by_a_short_dann_unless_a_recipe_is_named():
    source, y, target, y_target = clouds()
    adapter = DomainAdapter(overrides=["stages.0.epochs=2"]).fit(source, y, target)
    assert (adapter.recipe_.stages[0].method, adapter.recipe_.backbone) == ("dann", "mlp")
    assert adapter.score(target, y_target) > 0.8  # by chance a third
    with pytest.raises(ValueError, match=r"recipe fast.* turns and recolours images(.|\n)*image_shape"):
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


def test_masked_labels_are_not_scored_unless_minus_one_is_a_class(fitted):
    everything, masked, domains = both_domains()
    right = fitted.predict(everything[:60]) == masked[:60]
    assert fitted.score(everything, masked, sample_domain=domains) == right.mean()
    weights = np.r_[np.arange(60), np.full(60, 1e6)]
    assert fitted.score(everything, masked, weights) == pytest.approx(np.average(right, weights=np.arange(60)))
    assert fitted.predict(everything, sample_domain=domains).tolist() == fitted.predict(everything).tolist()
    with pytest.raises(ValueError, match=r"every label is -1(.|\n)*label_free_score"):
        fitted.score(everything[60:], masked[60:])
    source, y, target, _ = clouds()
    signed = short().fit(source, np.where(y == 0, -1, 1), target)
    assert signed.score(source, np.full(60, -1)) == (signed.predict(source) == -1).mean()


def test_masked_labels_of_classes_with_names_are_not_scored_however_they_are_given():
    source, codes, target, _ = clouds()
    named, everything = [f"class {code}" for code in codes], both_domains()[0]
    adapter = short().fit(source, named, target)
    right = (adapter.predict(source) == named).mean()
    mixed = np.array([*named, *[-1] * 60], dtype=object)
    for masked in (mixed, mixed.tolist(), mixed.astype(str), mixed.astype(str).astype(object)):
        assert adapter.score(everything, masked) == right
    signed = short().fit(source, np.where(codes == 0, "-1", "1"), target)
    assert signed.score(source, ["-1"] * 60) == (signed.predict(source) == "-1").mean()


def test_the_kept_epoch_is_the_one_with_the_best_label_free_score(tmp_path):
    source, y, target, _ = clouds()
    overrides = ("stages.0.epochs=4", "stages.0.epoch_steps=2", "stages.0.optim.lr=1e-2")
    scores = {}
    for epoch in ("selected", "last"):
        adapter = short(overrides=overrides, epoch=epoch, run_folder=tmp_path / epoch).fit(source, y, target)
        run = RunFolder.open(tmp_path / epoch)
        curve = [record.scores[DEFAULT_VALIDATOR] for record in run.metrics()]
        scores[epoch] = adapter.label_free_score_
        assert adapter.result_ == run.result()
    assert scores == {"selected": max(curve), "last": curve[-1]}


def test_each_alarm_is_a_warning():
    source, y, target, _ = clouds()
    shuffled = np.random.default_rng(1).permutation(y)
    with pytest.warns(AlarmWarning, match="source is not learnt: .* labels do not belong") as caught:
        adapter = short().fit(source, shuffled, target)
    assert len(caught) == len(adapter.alarms_)


def test_numpy_torch_and_lists_strings_and_integers_give_the_same(fitted):
    source, y, target, _ = clouds()
    for convert in (torch.tensor, np.ndarray.tolist):
        other = short().fit(convert(source), convert(y), convert(target))
        assert same_weights(fitted, other)
        assert other.predict(convert(target)).tolist() == fitted.predict(target).tolist()
        assert other.score(convert(source), convert(y)) == fitted.score(source, y)
    assert same_weights(fitted, short().fit(source, [f"class {label}" for label in y], target))


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
    with pytest.raises(ValueError, match=r"rows of 432 values are not images of image_shape=\(12, 12, 1\)"):
        DomainAdapter(image_shape=(12, 12, 1)).fit(colour.reshape(50, -1), y)


def test_flattened_grey_images_of_a_colour_target_are_predicted_also_after_loading(tiny_images, tmp_path):
    source, y, target, _ = tiny_images
    assert (source.shape[3], target.shape[3]) == (1, 3)
    adapter = DomainAdapter("dann", overrides=("backbone=mlp", "stages.0.epochs=1"), image_shape=(12, 12, 1))
    adapter.fit(flat := source.reshape(50, -1), y, target)
    adapter.save(tmp_path / "adapter.safetensors")
    again = DomainAdapter.load(tmp_path / "adapter.safetensors")
    assert adapter.n_features_in_ == again.n_features_in_ == 144
    assert again.predict(flat).tolist() == adapter.predict(flat).tolist() == adapter.predict(source).tolist()


@pytest.mark.parametrize("kind", ["U8", "complex64", "datetime64[s]"])
def test_images_that_are_not_numbers_are_refused(tiny_images, kind):
    source, y, target, _ = tiny_images
    with pytest.raises(ValueError, match=r"X has values of type (.|\n)*  hint:    convert them"):
        short().fit(source.astype(int).astype(kind), y, target)
    with pytest.raises(ValueError, match="X_target: X has values of type"):
        short().fit(source, y, target.astype(int).astype(kind))


def test_fits_in_several_threads_give_the_weights_of_fits_one_after_another(tiny_images):
    source, y, target, _ = tiny_images

    def fit(seed):
        return short("fast", random_state=seed).fit(source, y, target)

    with ThreadPoolExecutor(3) as pool:
        for seed, found in enumerate(pool.map(fit, range(3))):
            assert same_weights(found, fit(seed))


def test_a_run_on_arrays_that_was_stopped_is_never_said_to_resume(tmp_path, capsys):
    source, y, target, _ = clouds()
    short(run_folder=tmp_path / "run").fit(source, y, target)
    folder = RunFolder.open(tmp_path / "run")
    with pytest.raises(MutualignError, match=REFIT):  # to show the images for labelling
        load_task_of(folder, None)
    (folder.path / "result.json").unlink()
    assert (status_of(folder.path).state, status_of(folder.path).can_resume) == ("stopped", False)
    for wants in (folder.require_result, lambda: Experiment.resume(folder.path)):
        with pytest.raises(MutualignError, match=REFIT):
            wants()
    Show(folder.path).main(PlainConsole())
    assert REFIT in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("recipe", "place"), [("dann", "mine"), ("mani", "arrays/mine/seed-3")], ids=["alone", "in its place"]
)
def test_the_fit_that_is_advised_after_a_run_trains_its_source_only_run(tmp_path, recipe, place):
    source, y, target, _ = clouds()
    overrides = [f"stages.{stage}.epochs=20" for stage in range(2 if recipe == "mani" else 1)]
    folder = tmp_path / place
    short(recipe, overrides, run_folder=folder, random_state=3).fit(source, y, target)
    verdict = current_verdict(RunFolder.open(folder))
    assert verdict.compared_with is None
    code, *moves = re.findall("`([^`]*)`", next_steps(verdict, RunFolder.open(folder), alarms=False)[0])
    eval(code, {"DomainAdapter": DomainAdapter}).fit(source, y, target)  # noqa: S307
    assert len(moves) == (place == "mine")
    for move in map(Path, moves):
        move.parent.mkdir(parents=True)
        folder = folder.rename(move)
    baseline = current_verdict(RunFolder.open(folder)).compared_with
    assert baseline == RunFolder.open(folder).config().recipe.source_only().name


def test_the_pages_of_runs_on_arrays_name_no_command_that_needs_their_images(tmp_path):
    source, y, target, _ = clouds()
    short(run_folder=tmp_path / "arrays" / "dann" / "seed-0").fit(source, y, target)
    for path in (tmp_path, tmp_path / "arrays" / "dann" / "seed-0"):
        text = write_report(path).read_text()
        assert "A few labels show them." in text
        assert "--label-these" not in text
        assert "mutualign compare" not in text


def test_a_run_on_images_of_four_channels_is_refused_where_image_files_are_read(tmp_path):
    images, y = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 4), dtype=np.uint8), np.arange(20) % 2
    short("source_only", run_folder=tmp_path / "run").fit(images, y, images)
    Image.fromarray(images[0]).save(tmp_path / "one.png")
    message = "image files are read with 1 or 3 channels; the run .* takes images of 4\n  hint: "
    with pytest.raises(MutualignError, match=message):
        Predict(tmp_path / "run", tmp_path / "one.png").main(PlainConsole())
    with pytest.raises(MutualignError, match=message):
        Gallery.load([tmp_path / "run"])


def test_a_run_on_photos_in_memory_says_why_it_is_not_exported(tmp_path):
    photos, y = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8), np.arange(12) % 2
    overrides = (*SHORT, "features=efficientnet_lite0")
    short("photos", overrides, run_folder=tmp_path / "run").fit(photos, y, photos)
    with pytest.raises(MutualignError, match=r"photos in memory, and keeps no photos(.|\n)*its method save"):
        export_run(tmp_path / "run")
    with pytest.raises(MutualignError, match=r"on arrays in memory(.|\n)*keeps no images to show"):
        Gallery.load([tmp_path / "run"])


def test_images_too_small_for_the_backbone_leave_no_run_folder(tiny_images, tmp_path):
    source, y, target, _ = tiny_images
    adapter = DomainAdapter(run_folder=tmp_path / "run")
    with pytest.raises(MutualignError, match="12x12"):
        adapter.fit(source[:, :8, :8], y, target[:, :8, :8])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["source_only", "dann", "mani"])
def test_five_images_one_of_them_alone_in_its_class_and_one_target_image_will_do(recipe):
    source, _, target, _ = clouds()
    every_stage = SHORT if recipe != "mani" else (*SHORT, *(line.replace("0", "1", 1) for line in SHORT))
    adapter = short(recipe, every_stage).fit(source[:5], ["a", "a", "b", "b", "c"], target[:1])
    assert np.isfinite(adapter.predict_proba(target)).all()
    assert np.isfinite(adapter.label_free_score_)


def test_progress_is_shown_on_standard_error_only_if_asked_for(capsys, fitted):
    source, y, target, _ = clouds()
    quiet = short().fit(source, y, target)
    assert capsys.readouterr() == ("", "")
    short(verbose=True).fit(source, y, target)
    out, err = capsys.readouterr()
    assert out == ""
    starts = [f"{quiet.recipe_.name}: stage 1/1 (dann), epoch {i}/2" for i in (1, 2)]
    assert [line.partition("  ")[0] for line in err.splitlines()] == starts


def test_the_seed_decides(fitted):
    source, y, target, _ = clouds()
    assert not same_weights(fitted, short(random_state=4).fit(source, y, target))
    drawn = short(random_state=np.random.RandomState(3)).fit(source, y, target)
    assert drawn.result_.seed == np.random.RandomState(3).randint(2**31 - 1)


def test_importing_the_package_imports_neither_torch_nor_the_estimator():
    code = (
        "import sys, mutualign; assert 'sklearn' not in sys.modules and 'torch' not in sys.modules;"
        "assert set(mutualign.__all__) <= set(dir(mutualign))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in mutualign.__all__:  # imported when first asked for
        assert mutualign.__getattr__(name).__name__ == name
