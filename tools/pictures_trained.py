"""Pictures that train small networks first: the README's, the two mutual informations, what adaptation can do."""

from __future__ import annotations

import statistics
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from mutualign import DomainAdapter, all_pairs_mutual_information, information_maximisation
from mutualign.data.datasets import find_task
from mutualign.data.task import Task
from mutualign.data.types import to_floats
from mutualign.methods.mutual_align import MutualAlign
from mutualign.recipes import load_recipe
from mutualign.report.figure_style import BLUE, GREEN, GREY, ORANGE, VERMILLION
from mutualign.runs.experiment import Experiment
from mutualign.training.setup import build_classifier, build_method
from tools.look import bare, new_figure, picture
from tools.results import ROOT, load, mean_over_pairs, read_rows

SHOWN = 10  # images in a row of the hero
BASELINE = ROOT / "benchmarks" / "source-only-fast.toml"  # the network, length and schedule of `fast`, source only


class Trained(NamedTuple):
    """A recipe trained on `digits` with seed 0: logits of the target test images, the method before and after."""

    logits: Tensor
    before: MutualAlign
    after: MutualAlign


@cache
def digits() -> Task:
    """The embedded task."""
    return find_task("digits").load(Path("data"))


@cache
def trained(name: str, *overrides: str) -> Trained:
    """Train a recipe on `digits`, without overrides as results/digits.json has it for seed 0."""
    recipe, task = load_recipe(name, overrides), digits()
    with TemporaryDirectory() as folder:
        experiment = Experiment.start(recipe, task, 0, Path(folder, "run"))
        experiment.run()
        outputs, _ = experiment.folder.checkpoints.load_outputs(0, "last")
        saved = experiment.folder.checkpoints.load_resumable().tensors
    torch.manual_seed(0)
    before, after = (
        build_method(recipe.stages[-1], build_classifier(recipe, task.shape, len(task.class_names))).eval()
        for _ in range(2)
    )
    weights = {key.removeprefix("method."): value for key, value in saved.items() if key.startswith("method.")}
    after.load_state_dict(weights)
    return Trained(outputs["target_logits"], before, after)


# The hero -------------------------------------------------------------------------------------------------------------


@picture
def draw_hero() -> Figure:
    """Draw digits before and after adaptation, and accuracy before and after on digits, MNIST-M and Office-31."""
    figure, (upper, lower) = new_figure(3.6, 2, 1, height_ratios=(1.3, 2.0))
    draw_tiles(upper)
    draw_gains(lower)
    return figure


def draw_tiles(axis: Axes) -> None:
    """Draw the first source and target test images of `digits`, and what two recipes read."""
    task = digits()
    rows = {"with labels": task.source_test, "without labels": task.target_test}
    for row, (title, part) in enumerate(rows.items()):
        pixels = part.images.take(torch.arange(SHOWN), 0)
        for column, image in enumerate(pixels.expand(*pixels.shape[:3], 3).numpy()):
            axis.imshow(image, extent=(column + 0.04, column + 0.96, -row - 0.96, -row - 0.04))
        axis.text(-0.2, -row - 0.5, title, ha="right", va="center")
    truth = task.target_test.reveal_labels()
    for row, (title, recipe) in enumerate({"source only": str(BASELINE), "mutualign": "fast"}.items(), start=2):
        height = -1.1 - 0.65 * row
        found = trained(recipe).logits.argmax(1)[:SHOWN]
        for column, (digit, true) in enumerate(zip(found.tolist(), truth[:SHOWN].tolist(), strict=True)):
            right = digit == true
            text = f"{digit} {'✓' if right else '✗'}"
            axis.text(column + 0.5, height, text, ha="center", va="center", color=GREEN if right else VERMILLION)
        axis.text(-0.2, height, title, ha="right", va="center")
    axis.set(xlim=(-3.0, SHOWN), ylim=(-3.4, 0.0), aspect="equal")
    bare(axis)


def draw_gains(axis: Axes) -> None:
    """Draw target accuracy of source only and of this project's recipes."""
    pairs = gains()
    for height, (before, after) in enumerate(pairs.values()):
        axis.plot([before, after], [height, height], color=GREY, linewidth=2, zorder=1)
        axis.plot(before, height, "o", color=GREY, markersize=8, label="source only" if height == 0 else None)
        axis.plot(after, height, "o", color=GREEN, markersize=8, label="mutualign" if height == 0 else None)
        axis.text(before - 1.5, height, f"{before:.0f}", ha="right", va="center")
        axis.text(after + 1.5, height, f"{after:.0f}", ha="left", va="center")
    axis.set_yticks(range(len(pairs)), list(pairs))
    axis.set(xlabel="target accuracy, %", xlim=(38, 105), ylim=(len(pairs) - 0.5, -0.5))
    axis.tick_params("y", labelcolor=axis.title.get_color())
    axis.grid(visible=False, axis="y")
    axis.legend(loc="lower left")


def gains() -> dict[str, tuple[float, float]]:
    """Return target accuracies in %, of the same network on the source alone and adapted: means over seeds, last epoch.

    The network trained on the source alone has results of its own on MNIST-M; elsewhere both are in one file.
    """
    office31 = [row for row in read_rows(load("office31")["rows"]) if row.selection.kind == "last"]
    before, after = (
        100 * mean_over_pairs(office31, recipe, "last").mean for recipe in ("photos_source_only", "photos")
    )
    return {
        "digits\nover photos": (mean("digits", BASELINE.stem, "digits"), mean("digits", "fast", "digits")),
        "MNIST\nto MNIST-M": (
            mean(BASELINE.stem, BASELINE.stem, "mnist-mnistm"),
            mean("headline", "fast", "mnist-mnistm"),
        ),
        "Office-31,\nsix pairs": (before, after),
    }


def mean(results: str, recipe: str, task: str) -> float:
    """Return the mean target accuracy at the last epoch in a results file, in %."""
    rows = [row for row in read_rows(load(results)["rows"]) if row.selection.kind == "last"]
    return 100 * statistics.mean(row.target_accuracy for row in rows if (row.recipe, row.task) == (recipe, task))


# The two mutual informations ------------------------------------------------------------------------------------------


@picture
def draw_two_informations() -> Figure:
    """Draw predictions with their information about images, and a critic's scores before and after training."""
    figure, axes = new_figure(5.2, 2, 1, height_ratios=(1, 1.25))
    for axis in axes:
        axis.remove()
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    upper.suptitle("I(image; label), of four classes", fontsize=10)
    draw_predictions(upper.subplots(1, 3))
    lower.suptitle("I(source image; target image), of digits", fontsize=10)
    draw_scores(lower, lower.subplots(1, 2))
    return figure


def draw_predictions(axes: Any) -> None:
    """Draw twelve images' predictions that are undecided, all one class, or decided and varied."""
    classes = torch.arange(12) % 4
    logits = {
        "undecided": torch.zeros(12, 4),
        "one class": 20 * torch.eye(4)[torch.ones(12, dtype=torch.int64)],
        "decided, varied": 20 * torch.eye(4)[classes.sort().values],
    }
    for axis, (name, values) in zip(axes, logits.items(), strict=True):
        information = abs(float(information_maximisation(values)))
        axis.imshow(values.softmax(1).T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(f"{name}\n{information:.2f} nats")
        axis.set(xlabel="images")
        bare(axis)
    axes[0].set(ylabel="classes")


def draw_scores(figure: Any, axes: Any) -> None:
    """Draw the critic's scores of source and target test images of `digits`, both sorted by their true class."""
    run, task = trained("fast", "stages.0.options.mi_weight=1.0"), digits()
    target_labels = task.target_test.reveal_labels()
    order, target_order = task.source_test.labels.argsort(stable=True), target_labels.argsort(stable=True)
    same = task.source_test.labels[order][:, None] == target_labels[target_order]
    for axis, (name, method) in zip(axes, {"before": run.before, "after": run.after}.items(), strict=True):
        with torch.no_grad():
            features = [
                method.classifier.features(to_floats(part.images.pixels[rows], 3))
                for part, rows in ((task.source_test, order), (task.target_test, target_order))
            ]
            scores = method.critic(*features)
        loss = float(all_pairs_mutual_information(scores, same))
        shown = axis.imshow(scores, cmap="PuOr", vmin=-8, vmax=8, interpolation="nearest", rasterized=True)
        axis.set_title(f"{name}: loss {loss:.2f}")
        axis.set(xlabel="target images, 0 to 9")
        bare(axis)
    axes[0].set(ylabel="source images, 0 to 9")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="score of the pair")


# What adaptation can do and cannot ------------------------------------------------------------------------------------


def blobs(degrees: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of points around a circle, turned by an angle: [300, 2] and labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 100)
    angles = np.radians(degrees + 120 * labels)
    centres = 1.6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (centres + generator.normal(scale=0.32, size=(300, 2))).astype(np.float32), labels


@picture
def draw_limits() -> Figure:
    """Draw three classes of points: source only on a turned target, adapted to it, and to one turned too far."""
    figure, axes = new_figure(2.5, 1, 3, sharex=True, sharey=True)
    source, labels = blobs(0, seed=0)
    panels = {"source only": (55, "source_only"), "adapted": (55, "mcc"), "too far": (75, "mcc")}
    for axis, (name, (degrees, recipe)) in zip(axes, panels.items(), strict=True):
        target, truth = blobs(degrees, seed=1)
        adapter = DomainAdapter(recipe, overrides=["stages.0.epochs=12", "stages.0.epoch_steps=50"])
        adapter.fit(source, labels, target)
        right = np.mean(adapter.predict(target) == truth)
        grid = np.stack(np.meshgrid(*[np.linspace(-3, 3, 200, dtype=np.float32)] * 2), axis=-1).reshape(-1, 2)
        regions = adapter.predict(grid).reshape(200, 200)
        colours = ListedColormap([BLUE, ORANGE, GREEN])
        axis.imshow(regions, cmap=colours, alpha=0.25, extent=(-3, 3, -3, 3), origin="lower", vmin=0, vmax=2)
        axis.scatter(*source.T, c=labels, cmap=colours, s=5, linewidths=0, alpha=0.5)
        axis.scatter(*target.T, c=truth, cmap=colours, s=12, marker="^", linewidths=0)
        axis.set_title(f"{name}\n{100 * right:.0f} % right")
        bare(axis)
    return figure
