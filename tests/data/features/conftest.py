"""A network that is fast and counts its calls, in place of the pretrained one, and photos of two classes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from mutualign.nn.backbones.efficientnet_lite import FEATURES


@dataclass
class CountingNetwork:
    """Features of pictures: their pixels at 21x21, cut to 1,280 values in [0, 1]."""

    pictures: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    features: int = FEATURES

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.pictures += len(pixels)
        small = torch.nn.functional.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2).float() / 255, 21)
        return small.flatten(1)[:, :FEATURES]


@pytest.fixture
def network(monkeypatch) -> CountingNetwork:
    found = CountingNetwork()
    for place in ("data.features.extract", "runs.predictor"):
        monkeypatch.setattr(f"mutualign.{place}.feature_network", lambda name: found)
    return found


@pytest.fixture
def photos(tmp_path):
    """source/CLASS/*.png and target/*.png, 64x48 photos with a bright left or a bright right half."""
    rng = np.random.default_rng(0)
    for part, count, offset in (("source", 12, 0), ("target", 8, 60), ("test", 4, 61)):
        for name in ("left", "right"):
            folder = tmp_path / part / name if part != "target" else tmp_path / part
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 90, (48, 64, 3), dtype=np.uint8) + np.uint8(offset)
                pixels[:, slice(0, 32) if name == "left" else slice(32, 64)] += 100
                Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    return tmp_path
