"""The tensors that a run keeps for reports, estimates, exports and the demo: their names, types and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from mutualign.evaluation.target_labels import GALLERIES
from mutualign.io.tensors import check_layout

MANY = 1 << 40  # rows, where the number is not known


class Outputs(TypedDict):
    """A classifier's logits for test images of both domains, and features of some of them."""

    source_logits: Float[Tensor, "source classes"]
    source_labels: Int64[Tensor, " source"]
    source_features: Float[Tensor, "embedded_source features"]
    target_logits: Float[Tensor, "target classes"]
    target_features: Float[Tensor, "embedded features"]


class Review(TypedDict):
    """Images to look at; positions are among the target images that have outputs."""

    source_samples: Shaped[Tensor, "source_sample sample_height sample_width source_channels"]
    target_samples: Shaped[Tensor, "target_sample sample_height sample_width target_channels"]
    least_confident: Int64[Tensor, " least"]
    least_confident_pixels: Shaped[Tensor, "least height width channels"]


class LabelledReview(Review):
    """Also comparisons with target labels, see `evaluation.target_labels.review`."""

    labels: Int64[Tensor, " target"]
    embedded_labels: Int64[Tensor, " embedded"]
    confusion: Int64[Tensor, "classes classes"]
    reliability: Float64[Tensor, "bins 3"]
    confident_right: Int64[Tensor, " right"]
    confident_right_pixels: Shaped[Tensor, "right height width channels"]
    confident_wrong: Int64[Tensor, " wrong"]
    confident_wrong_pixels: Shaped[Tensor, "wrong height width channels"]


@dataclass(frozen=True)
class ReviewInfo:
    """Plain data of a review."""

    class_names: list[str]


def check_outputs(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names a tensor unless these are `Outputs`, finite and not empty, with valid labels."""
    check_layout(tensors, Outputs, {})
    require_finite(tensors)
    source, classes = tensors["source_logits"].shape
    for name, most in {
        "source_logits": MANY,
        "target_logits": MANY,
        "source_features": source,
        "target_features": len(tensors["target_logits"]),
    }.items():
        _require_length(tensors, name, most)
    _require_range(tensors, "source_labels", classes)


def check_review(tensors: Mapping[str, Tensor], classes: int, outputs: Mapping[str, Tensor] | None) -> None:
    """Raise ValueError that names a tensor unless these are a `Review` or `LabelledReview`.

    With the `outputs` of the same classifier, they must also be of the same images.
    """
    layout = Review if tensors.keys() <= Review.__annotations__.keys() else LabelledReview
    sizes, source, target = {"classes": classes}, MANY, MANY
    if outputs is not None:
        source, target = len(outputs["source_logits"]), len(outputs["target_logits"])
        sizes |= {"target": target, "embedded": len(outputs["target_features"])}
    check_layout(tensors, layout, sizes)
    require_finite(tensors)
    _require_length(tensors, "source_samples", source)
    _require_length(tensors, "target_samples", min(target, len(tensors.get("labels", range(target)))))
    for name, stop in (("labels", classes), ("embedded_labels", classes), ("confusion", MANY)):
        _require_range(tensors, name, stop)
    for name in GALLERIES:
        _require_range(tensors, name, target)


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names a tensor with a value that is not finite."""
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{broken[0]} is not finite")


def _require_length(tensors: Mapping[str, Tensor], name: str, most: int) -> None:
    """Raise ValueError unless a tensor has a row or more, and at most so many."""
    if not 1 <= len(tensors[name]) <= most:
        raise ValueError(f"{name} has {len(tensors[name])} rows, expected 1 to {most}")


def _require_range(tensors: Mapping[str, Tensor], name: str, stop: int) -> None:
    """Raise ValueError unless the values of a tensor, if it exists, are from 0 to `stop` - 1."""
    values = tensors.get(name, torch.empty(0))
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < stop:
        raise ValueError(f"{name} has values from {values.min()} to {values.max()}, expected 0 to {stop - 1}")
