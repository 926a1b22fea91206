"""Arrays, numpy or torch, images or feature vectors: checked, and converted to a task in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from mutualign.data.split import hold_out
from mutualign.data.task import ARRAYS, Task
from mutualign.data.types import ImageShape, LabelledImages, Pixels, TargetDataset, UnlabelledImages
from mutualign.nn.randomness import generator

CHANNELS = (1, 3, 4)  # the usual numbers, by which images with channels first are recognised
ROUNDING = 1e-6  # by which floats may leave [0, 1]
MASKED = -1  # the label of target rows in skada


def as_numpy(values: Any) -> Any:
    """Convert a torch tensor to a numpy array; return anything else unchanged."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def axes_of(values: Any) -> int:
    """Return the number of axes of an array, a table or a list of lists."""
    return int(values.ndim) if hasattr(values, "ndim") else np.asarray(values).ndim


def row_length(shape: ImageShape, image_shape: Sequence[int] | None) -> int:
    """Return how many values a row of X has, by the shape that is trained on unless images come flattened.

    That shape may have the target's channels, or be features of a pretrained network.
    """
    return math.prod(shape if image_shape is None else image_shape)


def require_same_form(X: Any, X_target: Any) -> None:  # noqa: N803
    """Raise ValueError if one of two arrays is images and the other feature vectors."""
    axes, target_axes = axes_of(X), axes_of(X_target)
    if (axes == 2) != (target_axes == 2):
        raise ValueError(
            f"X has {axes} axes and X_target {target_axes}: one is images, the other feature vectors\n"
            "  hint:    give both in the same form; for images flattened into rows, set image_shape"
        )


def require_numbers(images: Any) -> Any:
    """Return the images. Raises ValueError if they are text, complex numbers, dates and the like."""
    if (dtype := np.asarray(images).dtype).kind not in "biufO":
        raise ValueError(
            f"X has values of type {dtype}; images are integers in 0 .. 255 or floats in 0 .. 1\n"
            "  hint:    convert them, for example X.astype(float)"
        )
    return images


def vectors_to_pixels(vectors: NDArray[np.float32]) -> Pixels:
    """Convert feature vectors [n, features] to images of one pixel."""
    return torch.from_numpy(np.require(vectors[:, None, None, :], requirements=["C", "W"]))


def images_to_pixels(images: NDArray[Any]) -> Pixels:
    """Convert images [n, height, width] or [n, height, width, channels]: integers to bytes, floats to float32.

    Raises ValueError for another number of axes, for channels that seem to come first, and for values out of range.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise ValueError(f"X has {images.ndim} axes; images are [n, height, width] or [n, height, width, channels]")
    if images.shape[3] not in CHANNELS and images.shape[1] in CHANNELS:
        raise ValueError(
            f"X of shape {images.shape} looks like [n, channels, height, width]; channels come last here\n"
            "  hint:    X.transpose(0, 2, 3, 1) of an array, X.permute(0, 2, 3, 1) of a tensor"
        )
    return torch.from_numpy(np.require(_bytes_or_floats(images), requirements=["C", "W"]))


def _bytes_or_floats(images: NDArray[Any]) -> NDArray[Any]:
    if images.dtype.kind == "f" and not (finite := np.isfinite(images)).all():
        bad = np.flatnonzero(~finite.reshape(len(images), -1).all(1))
        raise ValueError(
            f"X has NaN or infinite values in {len(bad)} of {len(images)} images, the first is X[{bad[0]}]\n"
            "  hint:    leave these images out, X[np.isfinite(X).all(axis=(1, 2, 3))], and their labels"
        )
    low, high, kind = images.min(), images.max(), images.dtype.kind
    if kind in "iu" and low >= 0 and high <= 255:
        return images.astype(np.uint8, copy=False)
    if kind in "bf" and low >= -ROUNDING and high <= 1 + ROUNDING:
        return images.astype(np.float32, copy=False)
    raise ValueError(
        f"X has {images.dtype} values from {low:g} to {high:g}; images are integers in 0 .. 255 or floats in 0 .. 1\n"
        "  hint:    divide by the largest possible value, for example X / 255"
    )


def source_rows(sample_domain: Any, rows: int) -> Bool[Tensor, " rows"]:
    """Return which rows are of the source: those with a domain of 0 or above, as in skada; without domains all."""
    if sample_domain is None:
        return torch.ones(rows, dtype=torch.bool)
    domains = column_or_1d(as_numpy(sample_domain))
    if len(domains) != rows or domains.dtype.kind not in "iu":
        raise ValueError(
            f"sample_domain has one integer per row of X, {rows} in all; got {len(domains)} of type {domains.dtype}"
        )
    if not (domains >= 0).any():
        raise ValueError("sample_domain has no source: source rows have a domain of 0 or above")
    return torch.from_numpy(domains >= 0)


def source_labels(y: Any, is_source: Bool[Tensor, " rows"]) -> NDArray[Any]:
    """Return the labels of the source rows; the others are not looked at.

    Raises ValueError if they are not text, whole numbers or booleans, or a mix of these.
    """
    if y is None:
        raise ValueError("DomainAdapter requires y to be passed, but the target y is None")
    # A list of mixed types would silently become text.
    values = np.array(y, dtype=object) if isinstance(y, list | tuple) else as_numpy(y)
    labels: NDArray[Any] = column_or_1d(values, warn=True)
    check_consistent_length(is_source, labels)
    labels = labels[is_source.numpy()]
    if labels.dtype == object:  # of a list, or because target rows hold None
        text = [label for label in labels if isinstance(label, str)]
        if 0 < len(text) < len(labels):
            other = next(label for label in labels if not isinstance(label, str))
            raise ValueError(f"y mixes text and other values, such as {text[0]!r} and {other!r}; convert all to text")
        labels = np.asarray(labels.tolist())
    if labels.dtype.kind in "mM":
        raise ValueError("y has dates or times; labels are text, whole numbers or booleans, for example y.astype(str)")
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    return labels


def labelled_rows(y: Any, classes: NDArray[Any]) -> Bool[NDArray[Any], " rows"]:
    """Return which rows have a label: all but those with -1, the mask of skada, unless -1 is a class.

    Between text, numpy turns -1 into "-1". Raises ValueError if no row has a label.
    """
    masks, labels = {MASKED, str(MASKED)}, np.asarray(as_numpy(y)).tolist()
    if not masks.isdisjoint(classes.tolist()):
        return np.ones(len(labels), dtype=bool)
    has_label: NDArray[np.bool_] = np.array([label not in masks for label in labels], dtype=bool)
    if not has_label.any():
        raise ValueError(
            "every label is -1, which masks target labels: nothing can be scored\n"
            "  hint:    use the true labels, or select without labels: scoring=mutualign.estimator.label_free_score"
        )
    return has_label


def alike(source: UnlabelledImages, target: UnlabelledImages) -> tuple[UnlabelledImages, UnlabelledImages]:
    """Return both as bytes, or both as floats.

    Raises ValueError unless heights and widths are equal, and channels too; grey images match colour ones.
    """
    both = source.pixels, target.pixels
    (*size, channels), (*other_size, other_channels) = (pixels.shape[1:] for pixels in both)
    if size != other_size or (channels != other_channels and 1 not in (channels, other_channels)):
        raise ValueError(
            f"source images are {size[0]}x{size[1]} of {channels} channels, target images {other_size[0]}x"
            f"{other_size[1]} of {other_channels}\n  hint:    bring them to one size, and to 1 or the same channels"
        )
    if both[0].dtype == both[1].dtype:
        return source, target
    floats = (pixels if pixels.is_floating_point() else pixels.float() / 255 for pixels in both)
    return UnlabelledImages(next(floats)), UnlabelledImages(next(floats))


def held_out(labels: Int64[Tensor, " n"], fraction: float, seed: int) -> Bool[Tensor, " n"]:
    """Choose the source images that are not trained on: `fraction` of each class, rounded up.

    A class of one image keeps it. Raises ValueError if nothing is held out.
    """
    random = generator(seed, "held out")
    chosen = hold_out(labels, lambda rows: min(int(np.ceil(fraction * rows)), rows - 1), lambda label: random)
    if not chosen.any():
        raise ValueError(
            f"each class of the source has one image (n_samples = {len(labels)}): none can be held out\n"
            "  hint:    give two or more images of at least one class"
        )
    return chosen


def make_task(
    source: LabelledImages, target: UnlabelledImages, class_names: tuple[str, ...], held: Bool[Tensor, " n"]
) -> Task:
    """Make a task in memory: the source without what is held out, and an unlabelled target that is its own test set."""
    digest = hashlib.sha256()
    for tensor in (source.images.pixels, source.labels, target.pixels):
        digest.update(tensor.contiguous().numpy().data)
    height, width, channels = source.images.pixels.shape[1:]
    train, test = (rows.nonzero().flatten() for rows in (~held, held))
    unlabelled = TargetDataset(target, None)
    return Task(
        ARRAYS,
        f"arrays in memory: {len(source)} source and {len(target)} target images of {height}x{width}, channels "
        f"{channels} and {target.pixels.shape[3]}, sha256 {digest.hexdigest()[:16]}; {len(test)} held out",
        class_names,
        source.subset(train),
        source.subset(test),
        unlabelled,
        unlabelled,
    )
