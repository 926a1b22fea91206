"""Networks of the real timm: shapes, weights from files, runs that start from them."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from safetensors.torch import save_file

from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.nn.backbones import MLP, build_backbone
from mutualign.nn.backbones.timm import load_backbone_weights
from mutualign.nn.classifier import Classifier
from mutualign.recipes import OptimConfig, Recipe, Stage
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.predictor import Predictor
from mutualign.training.loop import Stopped
from mutualign.training.setup import build_classifier

pytestmark = pytest.mark.usefixtures("timm")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ZERO = torch.zeros(2)


def test_without_timm_the_error_says_what_needs_it_and_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MutualignError, match=r"timm:resnet18 needs timm(.|\n)*hint: +pip install 'mutualign\[timm\]'"):
        build_backbone("timm:resnet18", 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "shape", "features"),
    [
        ("test_resnet", (1, 20, 33), 96),
        ("test_resnet.r160_in1k", (5, 12, 12), 96),
        ("mobilenetv3_small_050", (3, 24, 24), 1024),  # timm's num_features is 288
        ("test_vit", (3, 32, 48), 64),  # made for 160x160: built for the size of the images
        ("deit_tiny_distilled_patch16_224", (3, 16, 16), 192),  # two classifiers
    ],
)
def test_features_are_as_many_as_the_network_returns(name, shape, features):
    classifier = Classifier(build_backbone(f"timm:{name}", *shape), 4)
    images = torch.rand(2, *shape)
    assert classifier.features(images).shape == (2, classifier.feature_dim) == (2, features)
    assert classifier(images).shape == (2, 4)


def test_colour_is_normalised_as_the_networks_configuration_says_and_other_images_are_not():
    images = torch.rand(4, 3, 32, 32)
    colour = build_backbone("timm:resnet10t", 3, 32, 32).eval()
    normalised = torch.stack([(images[:, i] - MEAN[i]) / STD[i] for i in range(3)], dim=1)
    assert torch.allclose(colour(images), colour.network(normalised), atol=1e-5)
    grey = build_backbone("timm:resnet10t", 1, 32, 32).eval()
    assert torch.equal(grey(images[:, :1]), grey.network(images[:, :1]))


def test_building_leaves_statistics_mode_and_torchs_generator_as_timm_does(timm):
    torch.manual_seed(0)
    backbone = build_backbone("timm:test_resnet", 3, 12, 12)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    expected = timm.create_model("test_resnet", num_classes=0).state_dict()
    assert torch.equal(after, torch.get_rng_state())
    found = backbone.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert all(module.training for module in backbone.modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_resnt", r'unknown backbone "timm:test_resnt"; did you mean "timm:test_resnet"\?'),
        ("xyzzy", r'unknown backbone "timm:xyzzy"; see timm\.list_models\(\)'),
        ("test_resnet.a9", r"timm:test_resnet\.a9 cannot be made for 3 channels: Invalid pretrained tag \(a9\)"),
        ("test_vit", r"timm:test_vit does not take images of 8x12 \(.*\); it is made for 160x160\n  hint: "),
    ],
)
def test_a_network_that_cannot_serve_is_refused_with_the_reason(name, message):
    with pytest.raises(MutualignError, match=message):
        build_backbone(f"timm:{name}", 3, 8, 12)


# Weights from a file --------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(timm):
    """What a file of timm's resnet contains: all weights, the classifier's too."""

    def weights(name="test_resnet", **settings):
        torch.manual_seed(9)
        network = timm.create_model(name, **settings)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.add_(torch.rand_like(module.running_mean))
        return dict(network.state_dict())

    return weights


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "test_vit"])
def test_weights_of_a_file_are_loaded_into_every_layer_but_the_classifier(weights, name, tmp_path):
    saved = weights(name, **({"img_size": (32, 32)} if name == "test_vit" else {}))
    saved = {key: tensor for key, tensor in saved.items() if not key.endswith("num_batches_tracked")}
    save_file(saved, tmp_path / "weights.safetensors")
    classifier = Classifier(build_backbone(f"timm:{name}", 3, 32, 32), 4)
    head = classifier.head.weight.clone()
    load_backbone_weights(classifier.features, tmp_path / "weights.safetensors")
    for key, tensor in classifier.features.network.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, saved[key]), key
    assert torch.equal(classifier.head.weight, head)
    if name == "test_resnet":
        assert classifier.features.network.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bn1.weight": None}, r"  bn1\.weight: missing\n  hint: "),
        (
            {"bn1.weight": None, "bn1.bias": None, "bn1.running_var": None, "bn1.running_mean": None},
            r"  bn1\.bias, bn1\.running_mean, bn1\.running_var and 1 more: missing\n",
        ),
        ({"bn1.bias": None, "layer9.weight": ZERO}, r"  bn1\.bias: missing\n  layer9\.weight: unexpected\n"),
        ({"head.weight": ZERO}, r"  head\.weight: unexpected\n"),  # another network's classifier
        ({"bn1.bias": ZERO}, r"  bn1\.bias \(\(2,\) for \(32,\)\): different shape\n"),
    ],
)
def test_a_file_of_another_network_is_refused_with_the_differences_and_changes_nothing(
    weights, changes, message, tmp_path
):
    kept = {key: tensor for key, tensor in (weights() | changes).items() if tensor is not None}
    save_file(kept, tmp_path / "w.safetensors")
    backbone = build_backbone("timm:test_resnet", 3, 16, 16)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with pytest.raises(MutualignError, match=rf"w\.safetensors: not those of timm:test_resnet\n{message}"):
        load_backbone_weights(backbone, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


def test_what_is_not_a_safetensors_file_or_not_for_timm_is_refused_by_name(tmp_path):
    backbone = build_backbone("timm:test_resnet", 3, 16, 16)
    (tmp_path / "pickle").write_bytes(b"\x80\x02}q\x00.")
    for name in ("absent", ".", "pickle"):
        with pytest.raises(MutualignError, match=r"not a readable \.safetensors file: "):
            load_backbone_weights(backbone, tmp_path / name)
    with pytest.raises(MutualignError, match="for timm backbones only, not for MLP"):
        load_backbone_weights(MLP(3, 4, 4), tmp_path / "pickle")


# Runs that start from weights -----------------------------------------------------------------------------------------


@pytest.fixture
def recipe(weights, tmp_path):
    """Two stages over a timm network, from the weights of a file."""
    save_file(weights(), tmp_path / "weights.safetensors")
    optim = OptimConfig(lr=1e-2)
    stages = tuple(Stage(name, epochs=1, batch_size=20, optim=optim) for name in ("source_only", "mutual_align"))
    path = str(tmp_path / "weights.safetensors")
    return Recipe("mine", stages, backbone="timm:test_resnet", backbone_weights=path, precision="float32")


def last_weights(path):
    return RunFolder(path).checkpoints.load_weights(1, "last")[0]


def test_a_run_starts_from_the_weights_and_resumes_and_predicts_without_their_file(recipe, tiny_task, tmp_path):
    Experiment.start(recipe, tiny_task, 0, tmp_path / "whole").run()
    stops = iter(range(1, 100))
    stopped = Experiment.start(recipe, tiny_task, 0, tmp_path / "run", should_stop=lambda: next(stops) == 4)
    with pytest.raises(Stopped):  # in the second stage: an epoch has three steps
        stopped.run()
    (tmp_path / "weights.safetensors").unlink()
    Experiment(recipe, tiny_task, 0, RunFolder.open(tmp_path / "run")).run()
    expected, found = last_weights(tmp_path / "whole"), last_weights(tmp_path / "run")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())

    predictor = Predictor.load(tmp_path / "run", which="last", accelerator="cpu")
    probabilities = predictor.probabilities(tiny_task.target_test.images.pixels)
    outputs, _ = RunFolder(tmp_path / "run").checkpoints.load_outputs(1, "last")
    assert torch.allclose(probabilities, outputs["target_logits"].float().softmax(1), atol=1e-5)

    with pytest.raises(MutualignError, match=r"weights\.safetensors: not a readable"):  # a new run needs the file
        Experiment.start(recipe, tiny_task, 0, tmp_path / "new").run()
    assert build_classifier(recipe, ImageShape(3, 12, 12), 3).feature_dim == 96


def test_the_weights_are_those_that_training_starts_from(recipe, weights, tiny_task, tmp_path):
    still = tuple(dataclasses.replace(stage, optim=OptimConfig(lr=1e-12)) for stage in recipe.stages)
    Experiment.start(dataclasses.replace(recipe, stages=still), tiny_task, 0, tmp_path / "run").run()
    found = last_weights(tmp_path / "run")
    for key, tensor in weights().items():
        if key.endswith("weight") and not key.startswith("fc."):
            assert torch.allclose(found[f"features.network.{key}"], tensor, atol=1e-6), key
