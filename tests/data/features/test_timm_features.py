"""Features of a frozen network of timm: computed, trained on, exported with the network, by the content of weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mutualign.data.features.network import TorchFeatures, feature_network
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.folders.image_io import decode_image
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.export.exporter import export_run
from mutualign.export.formats.safetensors import load_exported
from mutualign.nn.weights import NetworkWeights
from mutualign.runs.experiment import Experiment
from mutualign.runs.loading import load_task, recipe_for
from mutualign.runs.network_choice import NetworkChoice
from mutualign.runs.predictor import Predictor

NAME = "timm:test_resnet"
SHORT = ("stages.0.epochs=1", "stages.0.epoch_steps=4", "stages.0.batch_size=8", "views=2")


@pytest.fixture
def recipe(timm, tmp_path, monkeypatch):
    """`photos` on features of a network of timm with weights from a file, computed by torch."""
    monkeypatch.setattr("mutualign.data.features.network.has_onnx", lambda: False)
    feature_network.cache_clear()
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=0)
    save_file(dict(network.state_dict()), tmp_path / "weights.safetensors")
    choice = NetworkChoice(NAME, str(tmp_path / "weights.safetensors"))
    return recipe_for(None, "photos", SHORT, choice), network.eval()


def own(photos) -> FolderTask:
    return FolderTask(photos / "source", photos / "target", target_test=photos / "test")


def test_features_are_those_of_timm_at_the_size_and_with_the_colours_of_its_weights(recipe, photos, timm):
    chosen, network = recipe
    task = load_task("", photos, chosen, own(photos))
    path = photos / "target" / "left0.png"
    pixels = decode_image(path.read_bytes(), path, ImageShape(3, 160, 160)).permute(2, 0, 1) / 255
    config = timm.get_pretrained_cfg("test_resnet")
    mean, std = (torch.tensor(one)[:, None, None] for one in (config.mean, config.std))
    with torch.no_grad():
        expected = torch.stack([network(((one - mean) / std)[None])[0] for one in (pixels, pixels.flip(2))])
    found = task.target_train.images.take(torch.tensor([0]), 0)[0, :, 0].float()
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)  # kept as float16


def test_a_run_on_them_predicts_and_is_exported_and_its_weights_may_move_but_not_change(recipe, photos, tmp_path):
    chosen, network = recipe
    run = tmp_path / "run"
    Experiment.start(chosen, load_task("", photos, chosen, own(photos)), 0, run).run()
    predictor = Predictor.load(run, accelerator="cpu")
    assert isinstance(predictor.features, TorchFeatures)
    photo = torch.randint(256, (3, 160, 160, 3), dtype=torch.uint8)
    model, names = load_exported(export_run(run, "safetensors").path)
    assert names == ("left", "right")
    torch.testing.assert_close(model(photo), predictor.probabilities(photo), atol=0, rtol=0)

    other = {key: tensor + 1 for key, tensor in network.state_dict().items()}
    save_file(other, tmp_path / "weights.safetensors")
    feature_network.cache_clear()
    with pytest.raises(MutualignError, match=r"weights\.safetensors: other weights than those the run started with"):
        Predictor.load(run)
    with pytest.raises(MutualignError, match=r"features of timm:test_resnet with other weights\n  file "):
        load_exported(run / "model.safetensors")


def test_networks_that_a_file_of_weights_fits_have_features_of_their_own(recipe, photos, tmp_path, timm):
    chosen, _ = recipe
    tagged = replace(chosen, features=f"{NAME}.{timm.get_pretrained_cfg('test_resnet').tag}")
    for one in (chosen, tagged):
        load_task("", photos, one, own(photos))
    files = list((tmp_path / "cache" / "mutualign" / "features").rglob("*.bytes"))
    assert len({path.parent for path in files}) == 2


def test_a_random_network_gives_no_features():
    with pytest.raises(MutualignError, match="timm:test_resnet needs pretrained weights"):
        recipe_for(None, "photos", SHORT, NetworkChoice(NAME))
    assert NetworkWeights(NAME, "x.safetensors").network == NAME
