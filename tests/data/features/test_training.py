"""Runs on features of photos: from folders to a resumed run, and to predictions of new photos."""

from __future__ import annotations

import csv
import io
import shutil

import numpy as np
import pytest
import torch

from mutualign.cli.console import PlainConsole
from mutualign.cli.predict import Predict
from mutualign.data.features.network import TorchFeatures
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.nn.weights import NetworkWeights
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.loading import load_task
from mutualign.training.loop import Stopped

SHORT = ("stages.0.epochs=2", "stages.0.epoch_steps=5", "stages.0.batch_size=8", "views=3")


def own(folder) -> FolderTask:
    return FolderTask(folder / "source", folder / "target", target_test=folder / "test")


def weights(path) -> dict[str, torch.Tensor]:
    return RunFolder.open(path).checkpoints.load_weights(0, "last")[0]


def test_a_run_on_features_resumes_bit_for_bit_without_computing_them_again(photos, network):
    recipe = load_recipe("photos", SHORT)
    task = load_task("", photos, recipe, own(photos))
    assert (task.shape, task.features.views) == ((1280, 3, 1), 3)
    computed = network.pictures
    whole, cut = (photos / "runs" / name / "seed-0" for name in ("whole", "cut"))
    Experiment.start(recipe, task, 0, whole).run()
    stops = iter([False] * 3)
    with pytest.raises(Stopped):
        Experiment.start(recipe, task, 0, cut, should_stop=lambda: next(stops, True)).run()
    Experiment.resume(cut, photos).run()
    assert network.pictures == computed
    assert all(torch.equal(tensor, weights(cut)[name]) for name, tensor in weights(whole).items())

    shutil.copy(photos / "target" / "left0.png", photos / "target" / "new.png")
    with pytest.raises(MutualignError, match="the run was started with other data"):
        Experiment.resume(cut, photos).run()


def test_predictions_of_the_test_photos_are_the_outputs_that_the_run_kept(photos, network):
    recipe = load_recipe("photos", SHORT)
    path = photos / "runs" / "photos" / "seed-0"
    Experiment.start(recipe, load_task("", photos, recipe, own(photos)), 0, path).run()
    Predict(path, photos / "test", out=photos / "p.csv", epoch="last").main(PlainConsole(file=io.StringIO()))
    rows = list(csv.DictReader((photos / "p.csv").read_text(encoding="utf-8").splitlines()))
    outputs = RunFolder.open(path).checkpoints.load_outputs(0, "last")[0]["target_logits"].softmax(1)
    names = ("left", "right")
    assert [row["label"] for row in rows] == [names[best] for best in outputs.argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], outputs.amax(1), atol=2e-6)


def test_all_parts_of_one_folder_share_the_features_of_their_photos(photos, network):
    folder = photos / "source"
    FolderTask(folder, folder, folder, folder, features=FeatureSettings(views=1)).load()
    assert network.pictures == 24 + 4  # each photo once, and four that are timed before


def test_the_identity_covers_photos_labels_network_and_views(photos, network):
    def identity(views: int = 1) -> str:
        return load_task("", photos, load_recipe("photos", [f"views={views}"]), own(photos)).identity

    found = {identity(), identity(2)}
    shutil.move(photos / "source" / "left" / "left0.png", photos / "source" / "right" / "moved.png")
    found.add(identity())
    shutil.copy(photos / "test" / "left" / "left0.png", photos / "target" / "new.png")
    found.add(identity())
    assert len(found) == 4


def test_photos_of_four_classes_are_recognised_in_another_domain(tmp_path, real_data, monkeypatch):
    """With the default network in torch, one view, five photos of each class and domain; chance is 1/4."""
    compute = TorchFeatures(NetworkWeights(load_recipe("photos").features).load())
    monkeypatch.setattr("mutualign.data.features.extract.feature_network", lambda name: compute)
    classes = ("back_pack", "bike", "keyboard", "mug")
    for domain in ("amazon", "webcam"):
        rows = [
            f"{photo},{name}"
            for name in classes
            for photo in sorted((real_data / "office31" / domain / name).rglob("*.jpg"))[:5]
        ]
        assert len(rows) == 20
        (tmp_path / f"{domain}.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    source, target = tmp_path / "amazon.csv", tmp_path / "webcam.csv"
    recipe = load_recipe("photos", ["stages.0.epochs=3", "stages.0.epoch_steps=20", "views=1"])
    task = load_task("", tmp_path, recipe, FolderTask(source, target, target_test=target))
    result = Experiment.start(recipe, task, 0, tmp_path / "runs" / "photos" / "seed-0").run()
    assert result.stages[-1].last.target_accuracy > 0.8
