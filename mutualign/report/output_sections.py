"""Sections from a run's outputs on test images: embedding, confusion matrix, reliability, images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mutualign.data.types import spread
from mutualign.report.embedding import embed
from mutualign.report.figure_style import NAMED
from mutualign.report.output_plots import (
    COUNTED,
    confusion_matrix,
    embedding_by_class,
    embedding_by_domain,
    reliability_diagram,
)
from mutualign.report.page import Block, Gallery, Plot, Prose, Section, Table
from mutualign.report.run_data import FinishedRun

CONFUSIONS = 8  # rows in the table of the most frequent confusions
GALLERIES = {
    "confident_right": ("Confident and right", "The most confident predictions that are right."),
    "confident_wrong": ("Confident and wrong", "The most confident predictions that are wrong."),
    "least_confident": ("Least confident", "The predictions that the network is least sure of."),
}


def embedding_section(run: FinishedRun) -> Section:
    """Show the features of both domains in two dimensions, coloured by domain and by class."""
    outputs, names, blocks = run.outputs, run.class_names, list[Block]()
    if outputs:
        source, target = outputs["source_features"].float(), outputs["target_features"].float()
        points = embed(torch.cat([source, target]).numpy())
        if points is None:
            blocks.append(Prose("There is no embedding: the features are too few, all equal, or not finite."))
        else:
            is_source = np.arange(len(points)) < len(source)
            blocks.append(
                Plot(
                    "embedding-domain",
                    "Features by domain",
                    f"t-SNE of the features of {len(source):,} source and {len(target):,} target test images. After "
                    "a good adaptation, both domains share their clusters.",
                    embedding_by_domain(points, is_source),
                )
            )
            labels, origin = _embedded_labels(outputs, run.review)
            named = " A name stands where the target images of its class are." if len(names) <= NAMED else ""
            blocks.append(
                Plot(
                    "embedding-class",
                    "Features by class",
                    f"The same points, coloured by class: source images (small) by label, target images (large) "
                    f"by {origin}.{named}",
                    embedding_by_class(points, is_source, labels, names),
                )
            )
    return Section("embedding", "Embedding", blocks)


def _embedded_labels(outputs: Mapping[str, Tensor], review: Mapping[str, Tensor]) -> tuple[Int[np.ndarray, " n"], str]:
    """Return the classes of the embedded images, source first, and what those of the target are."""
    source = outputs["source_labels"][spread(len(outputs["source_labels"]), len(outputs["source_features"]))]
    if "embedded_labels" in review:
        target, origin = review["embedded_labels"], "label"
    else:
        logits = outputs["target_logits"]
        target, origin = logits.argmax(1)[spread(len(logits), len(outputs["target_features"]))], "predicted class"
    return torch.cat([source, target]).numpy(), origin


def confusion_section(run: FinishedRun) -> Section:
    """Show the confusion matrix and the most frequent confusions; empty without target labels."""
    names, blocks = run.class_names, list[Block]()
    if "confusion" in run.review:
        counts = run.review["confusion"].numpy()
        how = "A larger square is a larger share of the row."
        if len(names) <= COUNTED:
            how = "A stronger colour is a larger share of the row; the numbers count images."
        blocks.append(
            Plot(
                "confusion",
                "Confusion matrix of target test images",
                f"Each row is a true class: its images that were classified right in blue, wrong in orange. {how} "
                "Needs labels.",
                confusion_matrix(counts, names),
            )
        )
        wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
        order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
        rows = []
        for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
            if count := wrong[true, predicted]:
                share = f"{100 * count / counts[true].sum():.1f} %"
                rows.append((names[true], names[predicted], str(count), share))
        if rows:
            head = ("true class", "predicted", "images", "of the class")
            blocks.append(Table(head, rows, "The most frequent confusions.", numbers=frozenset({2, 3}), narrow=True))
    return Section("confusion", "Confusion matrix", blocks)


def reliability_section(run: FinishedRun) -> Section:
    """Show accuracy by confidence; empty without target labels."""
    blocks = list[Block]()
    if "reliability" in run.review:
        reliability = run.review["reliability"].double().numpy()
        bins = len(reliability)
        error = calibration_error(reliability)
        blocks = [
            Plot(
                "reliability",
                "Accuracy by confidence",
                f"Target test images in {bins} bins of confidence (highest class probability). Below the dashed line "
                f"the model is overconfident. Expected calibration error: {100 * error:.1f} points. Needs labels.",
                reliability_diagram(reliability),
            ),
            Table(
                ("confidence", "images", "mean confidence", "accuracy"),
                [
                    (
                        f"{100 * number // bins} to {100 * (number + 1) // bins} %",
                        f"{count:,.0f}",
                        *(f"{100 * x:.1f} %" for x in shares),
                    )
                    for number, (count, *shares) in enumerate(reliability)
                    if count
                ],
                "Bins without images are left out.",
                numbers=frozenset({1, 2, 3}),
                folded="The same as numbers",
            ),
        ]
    return Section("reliability", "Reliability", blocks)


def calibration_error(reliability: Float[np.ndarray, "bins 3"]) -> float:
    """Compute the expected calibration error: |accuracy - mean confidence| of each bin, weighted by its images.

    Columns: images, mean confidence, accuracy.
    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3.
    """
    counts, confidence, accuracy = reliability.T
    return float((counts * np.abs(accuracy - confidence)).sum() / max(counts.sum(), 1))


def predictions_section(run: FinishedRun) -> Section:
    """Show target images with their predictions: evenly spaced, the most and least confident; and source images."""
    names, review, blocks = run.class_names, run.review, list[Block]()
    if run.outputs:
        blocks += _samples(run, "target", names)
        for name, (title, caption) in GALLERIES.items():
            if name not in review:
                continue
            rows = review[name]
            if not len(rows):
                blocks.append(Prose(f"{title}: none."))
            elif showable(pixels := review[f"{name}_pixels"]):
                lines = _lines(run, names, rows)
                blocks.append(
                    Gallery(name.replace("_", "-"), title, f"{caption} {_legend(run)}", pixels.numpy(), lines)
                )
        blocks += _samples(run, "source", None)
    return Section("predictions", "Predictions", blocks)


def _samples(run: FinishedRun, domain: str, names: list[str] | None) -> list[Block]:
    """Show evenly spaced images of a domain, with predictions if names are given."""
    pixels = run.review.get(f"{domain}_samples")
    if pixels is None or not showable(pixels):
        return []
    lines, caption = list[str](), f"Evenly spaced test images of the {domain}."
    if names is not None:
        lines = _lines(run, names, spread(len(run.outputs["target_logits"]), len(pixels)))
        caption = f"{caption} {_legend(run)}"
    title, alt = f"{domain.capitalize()} images", f"{domain} image"
    return [Gallery(f"{domain}-samples", title, caption, pixels.numpy(), lines, alt)]


def _lines(run: FinishedRun, names: list[str], rows: Tensor) -> list[str]:
    """Describe the predictions on kept target images."""
    confidence, predicted = run.outputs["target_logits"][rows].double().softmax(1).max(1)
    labels = run.review.get("labels")
    true = [""] * len(rows) if labels is None else [f"{names[int(label)]} → " for label in labels[rows]]
    return [
        f"{before}{names[int(label)]}, {100 * float(share):.0f} %"
        for before, label, share in zip(true, predicted, confidence, strict=True)
    ]


def _legend(run: FinishedRun) -> str:
    predicted = "predicted class and confidence"
    return (
        f"Below each image: true class → {predicted}." if "labels" in run.review else f"Below each image: {predicted}."
    )


def showable(pixels: Tensor) -> bool:
    """Whether tensors are images; a task may have feature vectors instead."""
    return pixels.dtype == torch.uint8 and pixels.shape[3] in (1, 3)
