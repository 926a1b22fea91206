"""Prediction: a finished run as a classifier of new images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mutualign.data.features.network import FeatureNetwork, feature_network
from mutualign.data.types import ImageShape, Pixels, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.nn.classifier import Classifier
from mutualign.runs.checkpoints import Which
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result
from mutualign.training.diagnosis import NotFinite
from mutualign.training.distributed import make_fabric
from mutualign.training.fabric import Fabric
from mutualign.training.inference import predict_logits
from mutualign.training.setup import restore_classifier

CHUNK = 2000  # images that are held at once
AT_ONCE = 16  # images of which features are computed at once


class Prediction(NamedTuple):
    """The prediction for one image."""

    path: str
    label: str
    probability: float  # of the label
    entropy: float  # of the class probabilities, in nats, from 0 (certain) to ln(classes) (uniform)


@dataclass(frozen=True)
class Predictor:
    """A trained classifier, with the shape of its images and the names of its classes."""

    classifier: Classifier  # in evaluation mode
    shape: ImageShape  # of the images to predict
    class_names: tuple[str, ...]
    fabric: Fabric
    run: RunFolder
    result: Result
    features: FeatureNetwork | None = None  # computes what the classifier takes, if that is not pixels

    @classmethod
    def load(
        cls,
        path: Path,
        which: Which = "selected",
        accelerator: str = "auto",
        precision: str | None = None,
    ) -> Predictor:
        """Load the classifier of a run's last stage, at the epoch chosen without labels or at the last one.

        `precision` defaults to the recipe's. Raises MutualignError if the run is not complete, or if its weights are
        damaged, not finite, or of another network.
        """
        folder = RunFolder.open(path)
        config, result = folder.config(), folder.require_result()
        recipe, shape, names = config.recipe, config.images, tuple(config.class_names)
        try:
            weights, _ = folder.checkpoints.load_weights(len(recipe.stages) - 1, which)
            classifier = restore_classifier(recipe.backbone, shape, len(names), weights)
        except (MutualignError, ValueError) as error:
            raise MutualignError(
                f"{path}: its classifier cannot be loaded\n  fault    {error}\n"
                "  hint:    use the other epoch (selected or last), or train the run again in another folder"
            ) from error
        fabric = make_fabric(precision or recipe.precision, accelerator)
        classifier = classifier.to(fabric.device)
        if recipe.pretrained is None:
            return cls(classifier, shape, names, fabric, folder, result)
        side, network = recipe.pretrained.side, feature_network(recipe.pretrained)
        return cls(classifier, ImageShape(3, side, side), names, fabric, folder, result, network)

    @property
    def takes_vectors(self) -> bool:
        """Whether the run was trained on feature vectors, which are images of one pixel."""
        return self.features is None and (self.shape.height, self.shape.width) == (1, 1)

    def takes(self, pixels: Tensor) -> bool:
        """Whether images [n, height, width, channels] have the size of the run's, and its channels or one."""
        return pixels.shape[1:3] == self.shape[1:] and pixels.shape[3] in (1, self.shape.channels)

    def require_kind(self, where: object, vector_size: int | None) -> None:
        """Raise MutualignError unless the run takes what `where` holds: vectors of a size, or with None, images."""
        size = self.shape.channels if self.takes_vectors else None
        if vector_size != size:
            found, wanted = ("images" if one is None else f"vectors of {one:,} values" for one in (vector_size, size))
            hint = "images" if size is None else "a file of vectors of the model that the run's were computed with"
            raise MutualignError(f"{where}: {found}; the run {self.run.path} takes {wanted}\n  hint:    give {hint}")
        if size is None:
            self.require_image_files(where)

    def require_image_files(self, where: object) -> None:
        """Raise MutualignError unless the run takes the channels of image files; arrays may have four."""
        if self.shape.channels not in (1, 3):
            raise MutualignError(
                f"{where}: image files are read with 1 or 3 channels; the run {self.run.path} takes images of "
                f"{self.shape.channels}\n  hint:    classify arrays with the DomainAdapter that was trained on them"
            )

    def predict(self, images: Iterable[tuple[str, Tensor]]) -> Iterator[Prediction]:
        """Predict images, given as pairs of a path and uint8 pixels [height, width, channels] of the run's shape.

        Raises NotFinite that names the first and the last path of some images if the network overflows for one of them.
        """
        images = iter(images)
        while chunk := list(islice(images, CHUNK)):
            try:
                probabilities = self.probabilities(torch.stack([pixels for _, pixels in chunk])).double()
            except NotFinite as error:
                raise NotFinite(f"{chunk[0][0]} to {chunk[-1][0]}: {error}") from error
            best, classes = probabilities.max(1)
            entropy = torch.special.entr(probabilities).sum(1)
            for (path, _), *numbers in zip(chunk, classes.tolist(), best.tolist(), entropy.tolist(), strict=True):
                yield Prediction(path, self.class_names[int(numbers[0])], *numbers[1:])

    def probabilities(self, pixels: Pixels) -> Float[Tensor, "n classes"]:
        """Class probabilities of images of the run's height and width; grey images are repeated to its channels."""
        images, channels = UnlabelledImages(pixels), self.shape.channels
        if self.features is not None:
            images = UnlabelledImages(features_as_trained(self.features, pixels))
            channels = images.pixels.shape[3]
        return predict_logits(self.classifier, images, channels, self.fabric).softmax(1)


def features_as_trained(
    network: FeatureNetwork, pixels: UInt8[Tensor, "n side side stored"]
) -> Float[Tensor, "n 1 1 features"]:
    """Compute features of photos, rounded to float16 as for training; grey ones are repeated to three channels."""
    colour = pixels.expand(*pixels.shape[:3], 3).contiguous()
    return torch.cat([network(part) for part in torch.split(colour, AT_ONCE)]).half().float()[:, None, None, :]
