"""Draw the pictures of the docs from results/: samples, reproduction, accuracy over seconds, ablation."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from mutualign.data.datasets import TASKS
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.types import UnlabelledImages
from mutualign.runs.statistics import Interval
from tools.tables import OFFICE31, PUBLISHED_OFFICE31, read_rows

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
COLOURS = {
    "source_only": "#777777",
    "dann": "#E69F00",
    "mani": "#0072B2",
    "fast": "#009E73",
    "best": "#D55E00",
}  # Okabe and Ito: distinct for colour-blind readers
GOALS = (87, 97, 98.5)
TITLES = {"mnist-mnistm-resampled": "MNIST-M, resampled (as published)", "mnist-mnistm": "MNIST-M, frozen"}


def mosaic(images: UnlabelledImages, rows: int = 4, columns: int = 10) -> Tensor:
    """Return the first images side by side, two pixels apart: [height, width, 3]."""
    pixels = images.take(torch.arange(rows * columns), 0)
    framed = torch.full((rows * columns, pixels.shape[1] + 2, pixels.shape[2] + 2, 3), 255, dtype=torch.uint8)
    framed[:, 1:-1, 1:-1] = pixels.expand(*pixels.shape[:3], 3)
    grid = framed.view(rows, columns, *framed.shape[1:]).permute(0, 2, 1, 3, 4)
    return grid.reshape(rows * framed.shape[1], columns * framed.shape[2], 3)


def draw_samples() -> None:
    """Draw source and target test images of the task mnist-mnistm."""
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
    """Draw target accuracy over epochs from results/reproduction.json; MaNi starts where DANN ends."""
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


def draw_seconds() -> None:
    """Draw target accuracy over seconds of training: runs of results/headline.json, and MaNi from results/speed.json.

    The axis shows the error on a log scale, labelled by accuracy.
    """
    speed = json.loads((ROOT / "results" / "speed.json").read_text(encoding="utf-8"))
    curves = [(row["recipe"], *np.array(row["curve"]).T) for row in speed["rows"] if row["recipe"] == "mani"]
    headline = json.loads((ROOT / "results" / "headline.json").read_text(encoding="utf-8"))
    for row in (row for row in headline["rows"] if "curves" in row):
        seconds, accuracy = (row["curves"][name] for name in ("train_seconds", "target_accuracy"))
        curves.append((row["recipe"], np.array(seconds), np.array(accuracy)))
    figure, axis = plt.subplots(figsize=(7, 3.8))
    named = set()
    for recipe, seconds, accuracy in curves:
        label = None if recipe in named else recipe
        named.add(recipe)
        axis.plot(seconds, 100 * (1 - accuracy), ".-", color=COLOURS[recipe], linewidth=1, markersize=4, label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([20, 30, 50, 100, 200, 400], ["20", "30", "50", "100", "200", "400"])
    shown = (50, 70, *GOALS, 99)
    axis.set_yticks([100 - accuracy for accuracy in shown], [f"{accuracy:g}" for accuracy in shown])
    axis.minorticks_off()
    axis.invert_yaxis()
    axis.set_xlabel("seconds of training, two CPU cores")
    axis.set_ylabel("target test accuracy, %")
    axis.legend(loc="lower right", frameon=False)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(IMAGES / "seconds.png", dpi=150)
    plt.close(figure)


def draw_ablation() -> None:
    """Draw how each change to `fast` affects target accuracy at the last epoch, paired by seed."""
    results = json.loads((ROOT / "results" / "ablation.json").read_text(encoding="utf-8"))
    by_recipe: dict[str, dict[int, float]] = {}
    for row in (row for row in results["rows"] if row["selection"] == "last"):
        by_recipe.setdefault(row["recipe"], {})[row["seed"]] = 100 * row["target_accuracy"]
    whole = by_recipe.pop("fast")
    changes = {name: [accuracy - whole[seed] for seed, accuracy in found.items()] for name, found in by_recipe.items()}
    names = sorted(changes, key=lambda name: -Interval.of(changes[name]).mean)
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(names) + 1.1))
    axis.axvline(0, color="#777777", linewidth=1)
    for height, name in enumerate(names):
        interval = Interval.of(changes[name])
        axis.errorbar(interval.mean, height, xerr=interval.half_width, fmt="o", color="#0072B2", capsize=3)
        axis.plot(changes[name], [height] * len(changes[name]), "|", color="#D55E00", markersize=9)
    axis.set_yticks(range(len(names)), [name.replace("-", " ") for name in names])
    n, mean = len(whole), Interval.of(list(whole.values())).mean
    axis.set_xlabel(f"points of target accuracy against fast ({mean:.1f} %): mean, 95 % interval, {n} seeds")
    axis.invert_yaxis()
    axis.grid(alpha=0.25, axis="x")
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(IMAGES / "ablation.png", dpi=150)
    plt.close(figure)


def draw_office31() -> None:
    """Draw target accuracy on the pairs of Office-31 from results/office31.json, with what SHOT published."""
    results = json.loads((ROOT / "results" / "office31.json").read_text(encoding="utf-8"))
    rows = [row for row in read_rows(results["rows"]) if row.selection.kind == "last"]
    figure, axis = plt.subplots(figsize=(9, 3.6))
    names = {"photos_source_only": "source only", "photos_dann": "DANN", "photos_mani": "MaNi", "photos": "photos"}
    colours = ("#777777", "#E69F00", "#0072B2", "#009E73")
    width = 0.2
    for number, (recipe, colour) in enumerate(zip(names, colours, strict=True)):
        for place, pair in enumerate(OFFICE31):
            values = [
                100 * (row.target_accuracy or 0)
                for row in rows
                if (row.recipe, row.task) == (recipe, f"office31:{pair}")
            ]
            if values:
                interval = Interval.of(values)
                label = names[recipe] if place == 0 else None
                axis.bar(place + (number - 1.5) * width, interval.mean, width, color=colour, label=label)
                if interval.half_width is not None:
                    x = place + (number - 1.5) * width
                    axis.errorbar(x, interval.mean, interval.half_width, color="black", linewidth=1)
    for place, published in enumerate(PUBLISHED_OFFICE31["SHOT, published"][: len(OFFICE31)]):
        if published:
            label = "SHOT, ResNet-50 fine-tuned, published" if place == 0 else None
            axis.plot([place - 0.45, place + 0.45], [float(published)] * 2, "--", color="#D55E00", label=label)
    axis.set_xticks(range(len(OFFICE31)), [pair.replace("-", " → ") for pair in OFFICE31], fontsize=9)
    axis.set_ylim(50, 101)
    axis.set_ylabel("target accuracy, %")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=5, frameon=False, fontsize=9)
    axis.grid(alpha=0.25, axis="y")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(IMAGES / "office31.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Write all pictures to docs/images."""
    mpl.use("Agg")
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_samples()
    draw_curves()
    draw_seconds()
    draw_ablation()
    draw_office31()


if __name__ == "__main__":
    main()
