"""Networks of timm, with a stand-in for the library that has its interface; weights from files; runs that go on."""

from __future__ import annotations

import dataclasses
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.nn.backbones import MLP, build_backbone
from mutualign.nn.backbones.timm import load_backbone_weights
from mutualign.nn.classifier import Classifier
from mutualign.recipes import Recipe, Stage
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.predictor import Predictor
from mutualign.training.loop import Stopped
from mutualign.training.setup import build_classifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FakeNet(nn.Module):
    """As timm's networks: a classifier under the name that `pretrained_cfg` gives, or the identity for 0 classes."""

    def __init__(self, classifier, num_classes=1000, in_chans=3, hidden=0, side=0, pooled=True):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv_head = nn.Conv2d(8, hidden, 1) if hidden else nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.classifiers = (classifier,) if isinstance(classifier, str) else classifier
        self.num_features = 8  # in timm, too, the hidden layer of a head does not count
        for name in self.classifiers:
            setattr(self, name, nn.Linear(hidden or 8, num_classes) if num_classes else nn.Identity())
        size = (3, side or 224, side or 224)
        self.pretrained_cfg = {"input_size": size, "mean": MEAN, "std": STD, "classifier": classifier}
        self.side, self.pooled = side, pooled

    def forward(self, x):
        if self.side and x.shape[-1] != self.side:
            raise AssertionError(f"Input width ({x.shape[-1]}) doesn't match model ({self.side}).")
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.drop(self.conv_head(x.mean((2, 3), keepdim=True) if self.pooled else x))
        return getattr(self, self.classifiers[0])(x.flatten(1)) if self.pooled else x


NETWORKS = {
    "resnet_tiny": {"classifier": "fc"},
    "mobilenet_tiny": {"classifier": "classifier", "hidden": 12},
    "deit_tiny": {"classifier": ("head", "head_dist"), "side": 16},
    "maps_tiny": {"classifier": "fc", "pooled": False},
}


def create_model(model_name, pretrained=False, **kwargs):
    name, _, tag = model_name.partition(".")
    assert not pretrained  # nothing may be fetched
    if name not in NETWORKS:
        raise RuntimeError(f"Unknown model ({name})")
    if tag not in ("", "a1_in1k"):
        raise RuntimeError(f"Invalid pretrained tag ({tag}) for {name}.")
    return FakeNet(**NETWORKS[name], **kwargs)


@pytest.fixture
def timm(monkeypatch):
    """A module in the place of timm, with those of its functions that the project calls."""
    module = types.ModuleType("timm")
    module.create_model = create_model
    module.is_model = lambda name: name.partition(".")[0] in NETWORKS
    module.list_models = lambda: sorted(NETWORKS)
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


# The network ----------------------------------------------------------------------------------------------------------


def test_without_timm_it_is_said_what_needs_it_and_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MutualignError, match=r"timm:resnet18 needs timm(.|\n)*do +pip install 'mutualign\[timm\]'"):
        build_backbone("timm:resnet18", 3, 32, 32)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "shape", "features"),
    [
        ("resnet_tiny", (3, 20, 33), 8),
        ("resnet_tiny", (1, 5, 5), 8),
        ("resnet_tiny.a1_in1k", (5, 12, 12), 8),
        ("mobilenet_tiny", (3, 12, 12), 12),  # which timm's num_features does not say
        ("deit_tiny", (3, 16, 16), 8),
    ],
)
def test_features_are_as_many_as_the_network_gives(name, shape, features):
    classifier = Classifier(build_backbone(f"timm:{name}", *shape), 4)
    images = torch.rand(2, *shape)
    assert classifier.features(images).shape == (2, classifier.feature_dim) == (2, features)
    assert classifier(images).shape == (2, 4)


@pytest.mark.usefixtures("timm")
def test_colour_is_normalised_as_the_networks_configuration_says_and_other_images_are_not():
    images = torch.rand(4, 3, 9, 9)
    colour = build_backbone("timm:resnet_tiny", 3, 9, 9).eval()
    normalised = torch.stack([(images[:, i] - MEAN[i]) / STD[i] for i in range(3)], dim=1)
    assert torch.allclose(colour(images), colour.network(normalised), atol=1e-6)
    grey = build_backbone("timm:resnet_tiny", 1, 9, 9).eval()
    assert torch.equal(grey(images[:, :1]), grey.network(images[:, :1]))


def test_counting_features_leaves_statistics_mode_and_the_generator_alone(timm):
    torch.manual_seed(0)
    backbone = build_backbone("timm:mobilenet_tiny", 3, 12, 12)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    untouched = timm.create_model("mobilenet_tiny", num_classes=0, in_chans=3)
    assert torch.equal(after, torch.get_rng_state())
    assert backbone.network.state_dict().keys() == untouched.state_dict().keys()
    for key, tensor in untouched.state_dict().items():
        assert torch.equal(backbone.network.state_dict()[key], tensor), key
    assert all(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_tny", r'unknown backbone "timm:resnet_tny"; did you mean "timm:resnet_tiny"\?'),
        ("xyzzy", r'unknown backbone "timm:xyzzy"; timm\.list_models\(\)'),
        ("resnet_tiny.a9", r"timm:resnet_tiny\.a9 cannot be made for 3 channels: Invalid pretrained tag \(a9\)"),
        ("deit_tiny", r"timm:deit_tiny does not take images of 14x20 \(.*width \(20\).*\); it was made for 16x16\n"),
        ("maps_tiny", r"timm:maps_tiny gives \(1, 8, 12, 18\) for an image, not a vector"),
    ],
)
def test_a_network_that_cannot_serve_is_refused_with_the_reason(name, message):
    with pytest.raises(MutualignError, match=message):
        build_backbone(f"timm:{name}", 3, 14, 20)


@pytest.mark.usefixtures("timm")
def test_a_size_below_the_networks_kernel_is_refused_by_name_and_size():
    with pytest.raises(MutualignError, match="timm:resnet_tiny does not take images of 2x2"):
        build_backbone("timm:resnet_tiny", 3, 2, 2)


# Weights from a file --------------------------------------------------------------------------------------------------


def timm_weights(name, seed=9):
    """What timm's files hold: all weights, the classifier's too."""
    torch.manual_seed(seed)
    network = create_model(name)
    network.bn1.running_mean.add_(torch.rand(8))
    return dict(network.state_dict())


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["resnet_tiny", "mobilenet_tiny", "deit_tiny"])
def test_weights_of_a_file_come_into_every_layer_but_the_classifier(name, tmp_path):
    weights = timm_weights(name)
    save_file(weights, tmp_path / "weights.safetensors")
    classifier = Classifier(build_backbone(f"timm:{name}", 3, 16, 16), 4)
    head = classifier.head.weight.clone()
    load_backbone_weights(classifier.features, tmp_path / "weights.safetensors")
    for key, tensor in classifier.features.network.state_dict().items():
        assert torch.equal(tensor, weights[key]), key
    assert torch.equal(classifier.head.weight, head)
    assert classifier.features.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("timm")
def test_counts_of_batches_may_be_missing(tmp_path):
    weights = timm_weights("resnet_tiny")
    del weights["bn1.num_batches_tracked"]
    save_file(weights, tmp_path / "weights.safetensors")
    backbone = build_backbone("timm:resnet_tiny", 3, 16, 16)
    load_backbone_weights(backbone, tmp_path / "weights.safetensors")
    assert torch.equal(backbone.network.bn1.running_mean, weights["bn1.running_mean"])


ZERO = torch.zeros(2)
OTHER_FILES = {
    "one is missing": ({"conv1.weight": None}, r"  conv1\.weight: missing\n  do "),
    "four are missing": (
        {"conv1.weight": None, "bn1.weight": None, "bn1.bias": None, "bn1.running_var": None},
        r"  bn1\.bias, bn1\.running_var, bn1\.weight and 1 more: missing\n",
    ),
    "one too many": ({"layer1.weight": ZERO}, r"  layer1\.weight: unexpected\n"),
    "another's classifier": ({"head.weight": ZERO}, r"  head\.weight: unexpected\n"),
    "for grey images": (
        {"conv1.weight": torch.zeros(8, 1, 3, 3)},
        r"  conv1\.weight \(\(8, 1, 3, 3\) for \(8, 3, 3, 3\)\): of another shape\n",
    ),
    "two things": ({"bn1.bias": None, "x": ZERO}, r"  bn1\.bias: missing\n  x: unexpected\n"),
}


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("case", OTHER_FILES)
def test_a_file_of_another_network_is_refused_with_what_differs_and_changes_nothing(case, tmp_path):
    changes, message = OTHER_FILES[case]
    weights = timm_weights("resnet_tiny") | changes
    save_file({key: tensor for key, tensor in weights.items() if tensor is not None}, tmp_path / "w.safetensors")
    backbone = build_backbone("timm:resnet_tiny", 3, 16, 16)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with pytest.raises(MutualignError, match=rf"w\.safetensors: not those of timm:resnet_tiny\n{message}"):
        load_backbone_weights(backbone, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("content", [None, "a folder", b"", b"\x80\x02}q\x00."])
def test_what_is_not_a_safetensors_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "weights.safetensors"
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(MutualignError, match=r"weights\.safetensors: not a readable \.safetensors file: "):
        load_backbone_weights(build_backbone("timm:resnet_tiny", 3, 16, 16), path)


def test_the_projects_own_networks_take_no_file(tmp_path):
    with pytest.raises(MutualignError, match="for backbones of timm only, not for MLP"):
        load_backbone_weights(MLP(3, 4, 4), tmp_path / "weights.safetensors")


# Runs that begin with weights -----------------------------------------------------------------------------------------


@pytest.fixture
def recipe(timm, tmp_path):
    """Two stages over a network of timm, which begin with the weights of a file."""
    save_file(timm_weights("resnet_tiny"), tmp_path / "weights.safetensors")
    stages = tuple(Stage(name, epochs=2, batch_size=20, learning_rate=1e-2) for name in ("source_only", "mutual_align"))
    weights = str(tmp_path / "weights.safetensors")
    return Recipe("mine", "", stages, "timm:resnet_tiny", weights, precision="float32")


@pytest.fixture
def weights_file(recipe, tmp_path):
    return tmp_path / "weights.safetensors"


def last_weights(path):
    return RunFolder(path).load_tensors("stage-1-last")[0]


def test_a_run_begins_with_the_weights_and_goes_on_and_predicts_without_their_file(
    recipe, weights_file, tiny_task, tmp_path
):
    Experiment.start(recipe, tiny_task, 0, tmp_path / "whole").run()
    stops = iter(range(1, 100))
    stopped = Experiment.start(recipe, tiny_task, 0, tmp_path / "run", should_stop=lambda: next(stops) == 8)
    with pytest.raises(Stopped):  # in the second stage: an epoch has three steps
        stopped.run()
    weights_file.unlink()
    Experiment(recipe, tiny_task, 0, RunFolder.open(tmp_path / "run")).run()
    expected, found = last_weights(tmp_path / "whole"), last_weights(tmp_path / "run")
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key

    predictor = Predictor.load(tmp_path / "run", epoch="last", accelerator="cpu")
    probabilities = predictor.probabilities(tiny_task.target_test.images.pixels)
    assert probabilities.sum(1).allclose(torch.ones(20))
    outputs, _ = RunFolder(tmp_path / "run").load_tensors("stage-1-last-outputs")
    assert torch.allclose(probabilities, outputs["target_logits"].float().softmax(1), atol=1e-5)


def test_the_weights_are_what_training_begins_with(recipe, tiny_task, tmp_path):
    still = tuple(dataclasses.replace(stage, epochs=1, learning_rate=1e-12) for stage in recipe.stages)
    begin = dataclasses.replace(recipe, stages=still)
    Experiment.start(begin, tiny_task, 0, tmp_path / "run").run()
    found, weights = last_weights(tmp_path / "run"), timm_weights("resnet_tiny")
    for key in ("conv1.weight", "bn1.weight"):
        assert torch.allclose(found[f"features.network.{key}"], weights[key], atol=1e-6), key


def test_a_run_that_has_no_checkpoint_yet_needs_the_file(recipe, weights_file, tiny_task, tmp_path):
    weights_file.unlink()
    with pytest.raises(MutualignError, match=r"weights\.safetensors: not a readable"):
        Experiment.start(recipe, tiny_task, 0, tmp_path / "run").run()


def test_to_build_the_classifier_no_file_is_read(recipe, weights_file):
    weights_file.unlink()
    assert build_classifier(recipe, ImageShape(3, 12, 12), 3).feature_dim == 8
