"""A plain DANN training loop to compare with: one image per item, DataLoader, float32, NCHW, torch's layers.

It imports nothing from mutualign. `throughput.py` runs it in its own process, with the default allocator.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

Photo = Path | NDArray[np.uint8]  # a file to decode at every access, or its pixels
VARIANTS = ("decoded an item", "decoded once")  # decode photos for every item, as the published code does, or once


class PairedDigits(Dataset[tuple[Tensor, int, Tensor]]):
    """Items are a source digit, its label, and a digit blended with a random crop of a random photo."""

    def __init__(self, digits: NDArray[np.uint8], labels: Sequence[int], photos: Sequence[Photo]) -> None:
        self.digits, self.labels, self.photos = digits, labels, photos

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        which, u, v, w = torch.rand(4).tolist()
        blended = self._blend(self.digits[int(w * len(self.digits))], self.photos[int(which * len(self.photos))], u, v)
        source = np.repeat(self.digits[index][:, :, None], 3, axis=2)
        return _to_tensor(source), self.labels[index], _to_tensor(blended)

    @staticmethod
    def _blend(digit: NDArray[np.uint8], photo: Photo, u: float, v: float) -> NDArray[np.uint8]:
        pixels = decode(photo) if isinstance(photo, Path) else photo
        height, width = digit.shape
        top, left = int(u * (pixels.shape[0] - height + 1)), int(v * (pixels.shape[1] - width + 1))
        crop = pixels[top : top + height, left : left + width].astype(np.int16)
        return np.abs(crop - digit[:, :, None]).astype(np.uint8)


def decode(path: Path) -> NDArray[np.uint8]:
    """Read the pixels of a photo, [height, width, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Convert [height, width, channels] bytes to [channels, height, width] in [0, 1], like torchvision's ToTensor."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous().float().div(255)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class PlainDANN(nn.Module):
    """The published network from torch's layers in the published order; features in (channel, row, column) order."""

    def __init__(self, height: int = 28, width: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
        )
        size = 64 * ((height - 8) // 2) * ((width - 8) // 2)
        self.class_head = nn.Sequential(nn.Linear(size, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes))
        self.domain_head = nn.Sequential(nn.Linear(size, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, images: Tensor, n_source: int) -> tuple[Tensor, Tensor]:
        """Return class logits of the source rows, which come first, and domain logits of all rows."""
        features = self.features(images)
        return self.class_head(features[:n_source]), self.domain_head(_Reversal.apply(features)).squeeze(1)


class PlainLoop:
    """The plain loop over the same digits and photos as ours."""

    def __init__(
        self, digits: NDArray[np.uint8], labels: Sequence[int], photos: Sequence[Path], batch_size: int
    ) -> None:
        variants: dict[str, Sequence[Photo]] = dict(zip(VARIANTS, (photos, [*map(decode, photos)]), strict=True))
        self.datasets = {name: PairedDigits(digits, labels, of) for name, of in variants.items()}
        self.batch_size = batch_size
        self.model = PlainDANN(*digits.shape[1:3], classes=max(labels) + 1)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-4)

    def seconds(self, variant: str, workers: int, steps: int, warm_up: int) -> float:
        """Time `steps` steps, after `warm_up` steps in which the workers fill their queues; return seconds per step."""
        dataset = self.datasets[variant]
        spare = 2 * workers + 1  # so that the workers are as busy in the last step as in the first
        images = (warm_up + steps + spare) * self.batch_size
        sampler = RandomSampler(dataset, replacement=True, num_samples=images)
        batches = iter(DataLoader(dataset, self.batch_size, sampler=sampler, num_workers=workers))
        for _ in range(warm_up):
            self._step(*next(batches))
        start = time.perf_counter()
        for _ in range(steps):
            self._step(*next(batches))
        return (time.perf_counter() - start) / steps

    def _step(self, source: Tensor, labels: Tensor, target: Tensor) -> None:
        is_source = torch.cat([torch.ones(len(source)), torch.zeros(len(target))])
        class_logits, domain_logits = self.model(torch.cat([source, target]), len(source))
        loss = F.cross_entropy(class_logits, labels) + F.binary_cross_entropy_with_logits(domain_logits, is_source)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


_loop: list[PlainLoop] = []  # of this process


def start(*data: Any) -> None:
    """Build the loop of this process; a process pool calls this first."""
    _loop.append(PlainLoop(*data))


def seconds(variant: str, workers: int, steps: int, warm_up: int) -> float:
    """Call `PlainLoop.seconds` on this process's loop."""
    return _loop[0].seconds(variant, workers, steps, warm_up)
