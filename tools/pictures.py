"""Draw the pictures of the docs from results/ and from data: `python -m tools.pictures [NAME ...]`, by default all.

Most are drawn in seconds. `hero`, `two-informations` and `limits` train small networks first, for about a minute.
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import tools.pictures_trained  # noqa: F401 - registers its pictures
from mutualign.data.datasets import TASKS
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.types import UnlabelledImages
from mutualign.report.figure_style import BLUE, VERMILLION
from mutualign.runs.statistics import Interval
from tools.heat_map import draw_heat_map
from tools.leaderboard import Board
from tools.look import COLOURS, PICTURES, bare, new_figure, picture, save_picture
from tools.results import (
    BOARDS,
    OFFICE31,
    PUBLISHED_OFFICE31,
    Results,
    by_variant,
    load,
    mean_over_pairs,
    read_rows,
)

TITLES = {"mnist-mnistm-resampled": "MNIST-M, resampled (as published)", "mnist-mnistm": "MNIST-M, frozen"}


def mosaic(images: UnlabelledImages, rows: int = 4, columns: int = 6) -> Tensor:
    """Return the first images side by side, two pixels apart, with transparent gaps: [height, width, 4]."""
    pixels = images.take(torch.arange(rows * columns), 0)
    framed = torch.zeros((rows * columns, pixels.shape[1] + 2, pixels.shape[2] + 2, 4), dtype=torch.uint8)
    framed[:, 1:-1, 1:-1, :3] = pixels.expand(*pixels.shape[:3], 3)
    framed[:, 1:-1, 1:-1, 3] = 255
    grid = framed.view(rows, columns, *framed.shape[1:]).permute(0, 2, 1, 3, 4)
    return grid.reshape(rows * framed.shape[1], columns * framed.shape[2], 4)


@picture
def draw_samples() -> Figure:
    """Draw source and target test images of the task mnist-mnistm."""
    task = TASKS["mnist-mnistm"].load(data_folder())
    figure, axes = new_figure(1.85, 1, 2)
    parts = {"source: labelled": task.source_test.images, "target: no labels": task.target_test.images}
    for axis, (title, images) in zip(axes, parts.items(), strict=True):
        axis.imshow(mosaic(images).numpy(), interpolation="nearest")
        axis.set_title(title)
        bare(axis)
    return figure


@picture
def draw_reproduction() -> Figure:
    """Draw target accuracy over epochs from results/reproduction.json, a line per seed; MaNi starts where DANN ends."""
    runs: dict[tuple[str, str], list[Results]] = {}
    for row in load("reproduction")["rows"]:
        if "curves" in row:
            runs.setdefault((row["task"], row["recipe"]), []).append(row)
    tasks = [task for task in TITLES if any(task == found for found, _ in runs)]
    figure, axes = new_figure(2.4 * len(tasks), len(tasks), 1, sharex=True, sharey=True, squeeze=False)
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        for recipe in (recipe for found, recipe in runs if found == task):
            rows = runs[task, recipe]
            last = Interval.of([row["target_accuracy"] for row in rows])
            labels = [f"{recipe.replace('_', ' ')}: {last.percent()}", *[None] * (len(rows) - 1)]
            for row, label in zip(rows, labels, strict=True):
                accuracy = 100 * np.array(row["curves"]["target_accuracy"])
                epochs = np.arange(row["epochs"] - len(accuracy), row["epochs"]) + 1
                axis.plot(epochs, accuracy, color=COLOURS[recipe], linewidth=1.2, label=label)
        axis.legend(loc="lower right", title="at the last epoch", title_fontsize=10, alignment="right")
        axis.set(title=TITLES[task], ylabel="target accuracy, %")
    axes[-1][0].set_xlabel("epoch")
    return figure


@picture
def draw_seconds() -> Figure:
    """Draw target accuracy over seconds of training: the runs of results/headline.json.

    The axis shows the error on a log scale, labelled by accuracy.
    """
    figure, axis = new_figure(3.2)
    named = set()
    for row in (row for row in load("headline")["rows"] if "curves" in row):
        recipe = row["recipe"]
        seconds, accuracy = (np.array(row["curves"][name]) for name in ("train_seconds", "target_accuracy"))
        label = None if recipe in named else recipe
        named.add(recipe)
        axis.plot(seconds, 100 * (1 - accuracy), ".-", color=COLOURS[recipe], linewidth=1, markersize=4, label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([20, 30, 50, 100, 200, 400], ["20", "30", "50", "100", "200", "400"])
    shown = (90, 95, 97, 98.5, 99)
    axis.set_yticks([100 - accuracy for accuracy in shown], [f"{accuracy:g}" for accuracy in shown])
    axis.minorticks_off()
    axis.invert_yaxis()
    axis.set(xlabel="seconds of training, two CPU cores", ylabel="target accuracy, %")
    axis.legend(loc="lower right")
    return figure


@picture
def draw_ablation() -> Figure:
    """Draw how each change to `fast` affects target accuracy in short runs, paired by seed."""
    by_recipe = next(iter(by_variant(load("ablation")).values()))
    whole = by_recipe.pop("fast")
    del by_recipe["published-cnn"]  # another network; at chance, far off the scale
    changes = {name: [100 * (found[seed] - whole[seed]) for seed in found] for name, found in by_recipe.items()}
    names = sorted(changes, key=lambda name: -Interval.of(changes[name]).mean)
    figure, axis = new_figure(0.34 * len(names) + 0.8)
    axis.axvline(0, color=mpl.rcParams["axes.edgecolor"], linewidth=1)
    for height, name in enumerate(names):
        interval = Interval.of(changes[name])
        axis.errorbar(interval.mean, height, xerr=interval.half_width, fmt="o", color=BLUE, capsize=3)
        axis.plot(changes[name], [height] * len(changes[name]), "|", color=VERMILLION, markersize=9)
    axis.set_yticks(range(len(names)), [name.replace("-", " ") for name in names])
    mean = 100 * Interval.of(list(whole.values())).mean
    axis.set_xlabel(f"points of target accuracy against fast ({mean:.1f} %)")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    return figure


@picture
def draw_office31() -> Figure:
    """Draw target accuracy on the pairs of Office-31 from results/office31.json, with what SHOT published."""
    rows = [row for row in read_rows(load("office31")["rows"]) if row.selection.kind == "last"]
    names = {"photos_source_only": "source only", "photos": "photos"}
    figure, axis = new_figure(3.4)
    published = [float(value) if value else None for value in PUBLISHED_OFFICE31["SHOT, published"]]
    heights = [*range(len(OFFICE31)), len(OFFICE31) + 0.4]
    for number, (recipe, name) in enumerate(names.items()):
        intervals = [interval_of(rows, recipe, f"office31:{pair}") for pair in OFFICE31]
        intervals.append(mean_over_pairs(rows, recipe, "last"))
        colour, shift = COLOURS[recipe.removeprefix("photos_")], 0.2 * (number - 0.5)
        axis.errorbar(
            [100 * interval.mean for interval in intervals],
            [height + shift for height in heights],
            xerr=[100 * (interval.half_width or 0) for interval in intervals],
            fmt="o^"[number],
            color=colour,
            markersize=5.5,
            label=name,
        )
    known = [(value, height) for value, height in zip(published, heights, strict=True) if value]
    label = "SHOT, published (ResNet-50, fine-tuned)"
    axis.plot(*zip(*known, strict=True), "|", color=VERMILLION, markersize=17, markeredgewidth=2, label=label)
    axis.set_yticks(heights, [*(pair.replace("-", " → ") for pair in OFFICE31), "mean of six"])
    axis.axhline(len(OFFICE31) - 0.3, color=mpl.rcParams["axes.edgecolor"], linewidth=0.8)
    axis.set_xlabel("target accuracy, %")
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def interval_of(rows: list[Any], recipe: str, task: str) -> Interval:
    """Return the target accuracy of a recipe on a task, with its interval over seeds."""
    return Interval.of([row.target_accuracy for row in rows if (row.recipe, row.task) == (recipe, task)])


@picture
def draw_leaderboard() -> Figure:
    """Draw the gains of all methods over source only, from results/leaderboard-*.json."""
    return draw_heat_map({title: Board.of(read_rows(load(board)["rows"])) for board, title in BOARDS.items()})


def main() -> None:
    """Write the named pictures, or all, to docs/images."""
    mpl.use("Agg")
    for name in sys.argv[1:] or PICTURES:
        save_picture(name)


if __name__ == "__main__":
    main()
