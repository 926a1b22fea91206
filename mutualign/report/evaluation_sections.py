"""Sections made of a run's outputs and of its review: embedding, confusion, reliability, galleries, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mutualign.data.types import spread
from mutualign.report.embedding import embed
from mutualign.report.evaluation_plots import (
    confusion_matrix,
    embedding_by_class,
    embedding_by_domain,
    reliability_diagram,
)
from mutualign.report.page import Block, Gallery, Plot, Prose, Section, Table

Tensors = Mapping[str, Tensor]

CONFUSIONS = 8  # pairs of classes in the table of the most frequent ones
GALLERIES = {
    "confident_right": ("Confident and right", "The surest predictions that are right."),
    "confident_wrong": (
        "Confident and wrong",
        "The surest predictions that are wrong: what the model does not know that it does not know.",
    ),
    "least_confident": ("Least confident", "The least sure predictions, right or wrong."),
}


def _no_labels(what: str) -> Prose:
    return Prose(f"There are no target labels, so there is no {what}.")


def embedding_section(outputs: Tensors, review: Tensors, class_names: Sequence[str]) -> Section:
    """Features of both domains in two dimensions, coloured by domain and by class."""
    source, target = outputs["source_features"].float(), outputs["target_features"].float()
    points = embed(torch.cat([source, target]).numpy())
    blocks: list[Block] = [Prose("The features are too few, all alike, or not finite: there is nothing to show.")]
    if points is not None:
        labels, of_target = _embedded_labels(outputs, review)
        is_source = np.arange(len(points)) < len(source)
        alike = "Where adaptation works, both domains lie in the same clusters."
        blocks = [
            Plot(
                "embedding-domain",
                "Features, by domain",
                f"{len(source):,} source and {len(target):,} target test images. {alike}",
                embedding_by_domain(points, is_source),
            ),
            Plot(
                "embedding-class",
                "Features, by class",
                f"The same points; source by its labels, target by its {of_target}. Colours come back with another "
                "shape after eight classes.",
                embedding_by_class(points, is_source, labels, class_names),
            ),
            Prose(
                "Principal components, then t-SNE, at the chosen epoch. It is an illustration and no evidence: "
                "distances between clusters and their sizes mean nothing, and clusters may be made by t-SNE itself."
            ),
        ]
    return Section("embedding", "Feature embedding", blocks)


def _embedded_labels(outputs: Tensors, review: Tensors) -> tuple[np.ndarray, str]:
    """Classes of the embedded images, source rows first, and where those of the target come from."""
    source = outputs["source_labels"][spread(len(outputs["source_labels"]), len(outputs["source_features"]))]
    if "embedded_labels" in review:
        target, origin = review["embedded_labels"], "labels"
    else:
        logits = outputs["target_logits"]
        target, origin = logits.argmax(1)[spread(len(logits), len(outputs["target_features"]))], "predictions"
    return torch.cat([source, target]).numpy(), origin


def confusion_section(review: Tensors, class_names: Sequence[str]) -> Section:
    """The confusion matrix, and the confusions that occur most."""
    blocks: list[Block] = [_no_labels("confusion matrix")]
    if "confusion" in review:
        counts = review["confusion"].numpy()
        blocks = [
            Plot(
                "confusion",
                "Target test images by true and predicted class",
                "A row is a true class; the darker a cell, the larger its share of the row. Needs labels.",
                confusion_matrix(counts, class_names),
            ),
        ]
        wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
        order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
        rows = []
        for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
            if count := wrong[true, predicted]:
                share = f"{100 * count / counts[true].sum():.1f} %"
                rows.append((class_names[true], class_names[predicted], str(count), share))
        if rows:
            head = ("true class", "taken for", "images", "of that class")
            blocks.append(Table(head, rows, "The most frequent confusions.", numbers=frozenset({2, 3}), narrow=True))
    return Section("confusion", "Confusion matrix", blocks)


def reliability_section(review: Tensors) -> Section:
    """Whether the model is as sure as it is right."""
    blocks: list[Block] = [_no_labels("reliability diagram")]
    if "reliability" in review:
        reliability = review["reliability"].double().numpy()
        error = calibration_error(reliability)
        blocks = [
            Plot(
                "reliability",
                "Accuracy by confidence",
                f"Target test images in bins of top probability, each at its mean. Below the dashed line the model is "
                f"surer than right. Expected calibration error: {100 * error:.1f} points. Needs labels.",
                reliability_diagram(reliability),
            ),
            Table(
                ("top probability", "images", "mean of them", "accuracy"),
                [
                    (f"{10 * number} to {10 * number + 10} %", f"{count:,.0f}", *(f"{100 * x:.1f} %" for x in shares))
                    for number, (count, *shares) in enumerate(reliability)
                    if count
                ],
                "The same as numbers; bins without an image are left out.",
                numbers=frozenset({1, 2, 3}),
                narrow=True,
            ),
        ]
    return Section("reliability", "Reliability", blocks)


def calibration_error(reliability: np.ndarray) -> float:
    """Expected calibration error: the mean over images of |accuracy - mean top probability| of an image's bin.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3.
    """
    counts, confidence, accuracy = reliability.T
    return float((counts * np.abs(accuracy - confidence)).sum() / max(counts.sum(), 1))


def gallery_section(outputs: Tensors, review: Tensors, class_names: Sequence[str]) -> Section:
    """Target images that the model is surest of, right and wrong, and least sure of."""
    confidence, predicted = outputs["target_logits"].double().softmax(1).max(1)
    blocks: list[Block] = []
    for name, (title, caption) in GALLERIES.items():
        if name not in review:
            continue
        places: list[int] = review[name].tolist()
        if not places:
            blocks.append(Prose(f"{title}: none."))
            continue
        lines = []
        for place in places:
            true = f"{class_names[int(review['labels'][place])]} → " if "labels" in review else ""
            lines.append(f"{true}{class_names[int(predicted[place])]}, {100 * confidence[place]:.0f} %")
        below = "true → predicted class, confidence" if "labels" in review else "predicted class, confidence"
        pixels = review[f"{name}_pixels"].numpy()
        blocks.append(Gallery(name.replace("_", "-"), title, f"{caption} Below each: {below}.", pixels, lines))
    return Section("galleries", "Galleries", blocks or [_no_labels("gallery of right and wrong predictions")])


def samples_section(review: Tensors) -> Section:
    """Images of both domains."""
    blocks: list[Block] = [
        Gallery(
            f"{domain}-samples", domain.capitalize(), text, review[f"{domain}_samples"].numpy(), alt=f"{domain} image"
        )
        for domain, text in (
            ("source", "Test images, evenly spread over the source."),
            ("target", "Test images, evenly spread over the target."),
        )
        if f"{domain}_samples" in review
    ]
    return Section("samples", "Samples", blocks or [Prose("This run kept no images to show.")])
