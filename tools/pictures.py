"""The pictures of the README: samples of both domains, and the learning curves of the reproduction."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from mutualign.data.download import data_folder
from mutualign.data.images import UnlabelledImages
from mutualign.data.tasks import TASKS

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
COLOURS = {"source_only": "#777777", "dann": "#E69F00", "mani": "#0072B2"}  # Okabe and Ito: safe for colour-blind eyes
TITLES = {"mnist-mnistm-resampled": "MNIST-M, resampled (as published)", "mnist-mnistm": "MNIST-M, frozen"}


def mosaic(images: UnlabelledImages, rows: int = 4, columns: int = 10) -> Tensor:
    """The first images, side by side with a gap of two pixels: [height, width, 3]."""
    pixels = images.take(torch.arange(rows * columns), 0)
    framed = torch.full((rows * columns, pixels.shape[1] + 2, pixels.shape[2] + 2, 3), 255, dtype=torch.uint8)
    framed[:, 1:-1, 1:-1] = pixels.expand(*pixels.shape[:3], 3)
    grid = framed.view(rows, columns, *framed.shape[1:]).permute(0, 2, 1, 3, 4)
    return grid.reshape(rows * framed.shape[1], columns * framed.shape[2], 3)


def draw_samples() -> None:
    """Source and target test images of the task mnist-mnistm, side by side."""
    task = TASKS["mnist-mnistm"].load(data_folder())
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.35))
    parts = {"source: MNIST, labelled": task.source_test.images, "target: MNIST-M, no labels": task.target_test.images}
    for axis, (title, images) in zip(axes, parts.items(), strict=True):
        axis.imshow(mosaic(images).numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(IMAGES / "samples.png", dpi=150, bbox_inches="tight")
    plt.close(figure)


def draw_curves() -> None:
    """Target accuracy over the epochs of the runs in results/reproduction.json; MaNi goes on where DANN ends."""
    results = json.loads((ROOT / "results" / "reproduction.json").read_text(encoding="utf-8"))
    rows = [row for row in results["rows"] if "curves" in row]
    tasks = [task for task in TITLES if any(row["task"] == task for row in rows)]
    figure, axes = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 3.4), sharey=True, squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for row in (row for row in rows if row["task"] == task):
            accuracy = 100 * np.array(row["curves"]["target_accuracy"])
            epochs = np.arange(row["epochs"] - len(accuracy), row["epochs"]) + 1
            label = f"{row['recipe'].replace('_', ' ')}: {accuracy[-1]:.1f} at the last epoch"
            axis.plot(epochs, accuracy, color=COLOURS[row["recipe"]], linewidth=1.6, label=label)
        axis.legend(loc="lower right", frameon=False)
        axis.set_title(TITLES[task], fontsize=11)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("target test accuracy, %")
    figure.tight_layout()
    figure.savefig(IMAGES / "reproduction.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Draw both pictures into docs/images."""
    mpl.use("Agg")
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_samples()
    draw_curves()


if __name__ == "__main__":
    main()
