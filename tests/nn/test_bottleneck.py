"""The layer over features: which view of a photo it sees, in training and in evaluation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mutualign.nn.backbones.bottleneck import Bottleneck
from mutualign.nn.distributed import Share


def seen(network: Bottleneck, images: torch.Tensor) -> torch.Tensor:
    """The view of each image that the network sees."""
    chosen = network._choose(images)
    views = images.flatten(2)
    return (views == chosen[:, :, None]).all(1).int().argmax(1)


def test_evaluation_sees_the_first_view_and_training_a_random_one():
    torch.manual_seed(0)
    network, images = Bottleneck(5, 4, 1), torch.randn(4000, 5, 4, 1)
    counts = torch.bincount(seen(network.train(), images), minlength=4)
    assert counts.sum() == 4000
    assert counts.min() > 900  # 1,000 expected, with a standard deviation of 27
    network.eval()
    assert seen(network, images).sum() == 0
    first = images[:, :, 0, 0]
    weight, norm = network.linear.weight, network.norm
    expected = F.relu(first @ weight.T / (1 + norm.eps) ** 0.5)
    torch.testing.assert_close(network(images), expected)
    assert torch.equal(network(images), network(images[:, :, :1]))


def test_the_view_is_a_function_of_the_seed_and_equal_in_all_processes(monkeypatch):
    network, images = Bottleneck(3, 6, 1).train(), torch.randn(10, 3, 6, 1)

    def draw(rows: slice, share: Share | None = None) -> list[int]:
        torch.manual_seed(7)
        monkeypatch.setattr("mutualign.nn.distributed._state.share", share)
        return seen(network, images[rows]).tolist()

    whole = draw(slice(None))
    assert draw(slice(None)) == whole
    assert draw(slice(0, 5), Share(0, 5, 10)) + draw(slice(5, 10), Share(5, 10, 10)) == whole
