"""Pretrained weights of timm networks: from the hub's own cache, from files, by their content."""

from __future__ import annotations

import socket
import time

import pytest
import torch
from safetensors.torch import save_file

from mutualign.errors import MutualignError
from mutualign.io.hashing import sha256_of
from mutualign.nn.backbones.timm import hub_file
from mutualign.nn.weights import NetworkWeights
from mutualign.recipes import load_recipe
from mutualign.runs.spec import RunSpec

pytestmark = pytest.mark.usefixtures("timm")

NAME = "timm:test_resnet.r160_in1k"
REPOSITORY, COMMIT = "models--timm--test_resnet.r160_in1k", "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache on this machine, empty; any attempt to connect fails the way it does offline, at once."""

    def refuse(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the hub's waits between its attempts: 23 s in all
    return tmp_path / "hub" / REPOSITORY


def keep(hub, timm):
    """Put weights where the hub keeps what it has fetched."""
    torch.manual_seed(7)
    weights = dict(timm.create_model("test_resnet").state_dict())
    snapshot = hub / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(COMMIT)
    save_file(weights, snapshot / "model.safetensors")
    return weights


def test_weights_that_the_hub_has_fetched_once_are_found_offline(hub, timm):
    weights = keep(hub, timm)
    chosen = NetworkWeights(NAME, "pretrained")
    assert chosen.side == 160
    network = chosen.load()
    assert not network.training
    assert not any(one.requires_grad for one in network.parameters())
    for key, tensor in network.network.state_dict().items():
        assert torch.equal(tensor, weights[key]), key
    assert chosen.digest == sha256_of(hub_file(NAME))


def test_offline_the_error_says_what_could_not_be_fetched_and_what_else_to_do(hub):
    with pytest.raises(
        MutualignError,
        match=r"test_resnet\.r160_in1k: its weights cannot be fetched from timm's hub \(timm/test_resnet\.r160_in1k\): "
        r".+\n  hint:    connect once, (.|\n)*--weights FILE\.safetensors",
    ):
        NetworkWeights(NAME, "pretrained").load()
    with pytest.raises(MutualignError, match=r"timm's hub has no weights of it\n  hint: "):
        hub_file("timm:beit3_giant_patch14_224")


def test_a_recipe_is_known_by_the_content_of_its_weights_and_not_by_their_path(tmp_path):
    for name, value in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        save_file({"x": torch.tensor([value])}, tmp_path / f"{name}.safetensors")

    def recipe(name):
        return load_recipe("dann", ["backbone=timm:resnet18", f"backbone_weights={tmp_path / name}.safetensors"])

    a, b, c = map(recipe, "abc")
    assert (a.digest, a.name, RunSpec(a, "t", 0).digest) == (b.digest, b.name, RunSpec(b, "t", 0).digest)
    assert len({a.digest, c.digest}) == len({RunSpec(one, "t", 0).digest for one in (a, c)}) == 2
    assert a.is_prefix_of(b)
    assert not a.is_prefix_of(c)
    (tmp_path / "c.safetensors").replace(tmp_path / "a.safetensors")
    with pytest.raises(
        MutualignError, match=r"a\.safetensors: other weights than (.|\n)*then (.|\n)*now (.|\n)*hint: "
    ):
        a.initial_weights.file()
    assert recipe("a").digest == c.digest
    with pytest.raises(MutualignError, match=r"absent: cannot be read: No such file"):
        sha256_of(tmp_path / "absent")
