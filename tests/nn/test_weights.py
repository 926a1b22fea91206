"""Pretrained weights of timm networks: from the hub's own cache, from files, by their content."""

from __future__ import annotations

import importlib
import socket
import time

import huggingface_hub
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
attempts = []  # hosts that were looked up


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache on this machine, empty; attempts to connect fail the way they do offline, and are counted."""

    def refuse(host, *_, **__):
        attempts.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    attempts.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits for another attempt"))
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
    assert attempts == []


def test_offline_the_error_says_what_could_not_be_fetched_and_what_else_to_do_at_once(hub):
    with pytest.raises(
        MutualignError,
        match=r"test_resnet\.r160_in1k: its weights cannot be fetched from timm's hub \(timm/test_resnet\.r160_in1k\): "
        r".+\n  hint:    connect once, (.|\n)*--weights FILE\.safetensors",
    ):
        NetworkWeights(NAME, "pretrained").load()
    with pytest.raises(MutualignError, match=r"timm's hub has no weights of it\n  hint: "):
        hub_file("timm:beit3_giant_patch14_224")


@pytest.mark.parametrize("fault", ["busy", "slow"])
def test_on_a_shaky_network_the_hub_is_asked_again(hub, monkeypatch, fault):
    httpx = importlib.import_module(type(huggingface_hub.get_session()).__module__.partition(".")[0])
    content, asked, waits = b"the weights", [], []

    def answer(_, request):
        if not request.url.path.endswith("/model.safetensors"):  # the client also asks for news of its own
            return httpx.Response(404)
        asked.append(request.method)
        if len(asked) <= 3:
            if fault == "slow":
                raise httpx.ReadTimeout("no answer in time")
            return httpx.Response(503)
        about = {"ETag": '"e"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}
        return httpx.Response(200, headers=about, content=content if request.method == "GET" else b"")

    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    assert hub_file(NAME).read_bytes() == content
    assert waits == [1]
    assert asked == ["HEAD"] * 4 + ["GET"]


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
