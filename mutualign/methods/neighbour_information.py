"""Information maximisation with neighbours: the method of the recipe `photos`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mutualign.data.types import Batch
from mutualign.io.typed import Count, Share
from mutualign.methods.base import Losses, Method, Metrics, PseudoLabeller, accuracy
from mutualign.methods.registry import register_method
from mutualign.nn.class_prior import PRIORS, EstimatedPrior
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.ema import EMATeacher
from mutualign.nn.losses import entropy, information_maximisation

CHUNK = 1024  # rows whose neighbours are looked for at once
MOST_SIMILARITIES = 1 << 25  # at once, which fewer rows of many images reach


@dataclass(frozen=True)
class NeighbourInformationConfig:
    """Settings of information maximisation with neighbours."""

    label_smoothing: Share = 0.1  # of the cross-entropy on the source
    information_weight: float = 1.0  # of the mutual information
    information_ramp: Share = 1.0  # share of the stage over which this weight grows from 0
    prior: Literal["uniform", "estimated"] = "estimated"  # how frequent the target's classes are taken to be
    neighbour_weight: float = 0.1  # of the cross-entropy with the neighbours' predictions
    neighbour_start: float = 0.2  # share of the stage after which this loss begins,
    neighbour_ramp: Share = 0.3  # and over which its weight grows from 0
    neighbours: Count = 5
    decay: Share = 0.99  # of the teacher's moving average


@register_method("neighbour_information", NeighbourInformationConfig)
class NeighbourInformation(Method):
    """Cross-entropy on the source, mutual information of target images and labels, and agreement with neighbours.

    L = CE(source) - a I(x_t; y_t) + b CE(q, p_t), with I = -KL(E p || r) - E H(p), r the target's class frequencies,
    and q the mean prediction of the nearest neighbours of an image. The frequencies are estimated before each epoch,
    and stay near uniform while predictions are unsure (`plausible_shares`). Neighbours are found once: in the input if
    that is feature vectors, otherwise in the features at the start of the stage. All these predictions are those of a
    moving average of the classifier, which the stage produces. Sources: SHOT (Liang et al., ICML 2020) for information
    maximisation; ATDOC (Liang et al., CVPR 2021) for neighbours, here fixed and soft.
    """

    resizable_buffers = frozenset({"neighbours", "predictions"})

    config: NeighbourInformationConfig
    neighbours: Tensor
    predictions: Tensor

    def __init__(self, classifier: Classifier, config: NeighbourInformationConfig) -> None:
        super().__init__(classifier, config)
        self.teacher = EMATeacher(classifier, config.decay)
        self.prior = PRIORS[config.prior](classifier.classes)
        self.register_buffer("neighbours", torch.empty(0, config.neighbours, dtype=torch.int64))
        self.register_buffer("predictions", torch.empty(0, classifier.classes))
        self._latest: tuple[Tensor, Tensor] | None = None

    @property
    def output_model(self) -> Classifier:
        return self.teacher.model

    @property
    def pseudo_labeller(self) -> PseudoLabeller:
        return PseudoLabeller(self.teacher.model, 0.0)

    def begin_epoch(self, look: Callable[[], Outputs]) -> None:
        outputs = look() if len(self.neighbours) == 0 else None
        if outputs is not None:
            device = next(self.classifier.parameters()).device
            rows = outputs.features if outputs.vectors is None else outputs.vectors
            self.neighbours = nearest_neighbours(rows.to(device), self.config.neighbours)
            classes = outputs.logits.shape[1]
            self.predictions = torch.full((len(rows), classes), 1 / classes, device=device)
        elif isinstance(self.prior, EstimatedPrior):
            self.prior.update(self.predictions, self.neighbours)

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        config, n = self.config, batch.n_source
        teacher = self.teacher(batch.target)
        if batch.target.shape[2] > 1 and batch.target.shape[3] == 1:  # features in several views, of which it sees one
            teacher = (teacher + self.teacher(batch.target.roll(-1, dims=2))) / 2
        self._latest = (batch.target_rows, teacher.softmax(1))

        logits = self.logits(batch.images)
        source, target = logits[:n], logits[n:]
        agreed = self.predictions[self.neighbours[batch.target_rows]].mean(1)
        each = -(agreed * target.log_softmax(1)).sum(1)
        information = config.information_weight * grown(progress, config.information_ramp)
        neighbour = grown(progress - config.neighbour_start, config.neighbour_ramp)
        losses = {
            "class": F.cross_entropy(source, batch.labels, label_smoothing=config.label_smoothing),
            "information": information * information_maximisation(target, self.prior.shares),
            "neighbours": config.neighbour_weight * neighbour * each.mean(),
        }
        return losses, {
            "class_accuracy": accuracy(source, batch.labels),
            "neighbour_entropy": entropy(agreed.clamp_min(1e-8).log()).mean().detach(),
            "prior_from_uniform": self.prior.from_uniform,
        }

    def after_step(self) -> None:
        self.teacher.update(self.classifier)
        if self._latest is not None:
            rows, predictions = self._latest
            self.predictions[rows] = predictions
            self._latest = None


def grown(progress: Float[Tensor, ""], ramp: float) -> Float[Tensor, ""]:
    """Return how far a weight has grown after a share of the stage, from 0 to 1; a ramp of 0 is a step after 0.

    >>> [float(grown(torch.tensor(progress), 0.0)) for progress in (-0.1, 0.0, 0.1)]
    [0.0, 0.0, 1.0]
    """
    return (progress / max(ramp, torch.finfo(progress.dtype).tiny)).clamp(0, 1)


def nearest_neighbours(rows: Float[Tensor, "n features"], k: int) -> Int64[Tensor, "n k"]:
    """Return the k nearest other rows of each row in cosine distance; of k or fewer rows, some are repeated.

    >>> nearest_neighbours(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 1).flatten().tolist()
    [1, 0, 1]
    """
    unit, found = F.normalize(rows, dim=1), []
    available = max(min(k, len(rows) - 1), 1)
    chunk = max(1, min(CHUNK, MOST_SIMILARITIES // max(len(rows), 1)))
    for start in range(0, len(rows), chunk):
        similarities = unit[start : start + chunk] @ unit.T
        own = torch.arange(start, start + len(similarities), device=rows.device)[:, None]
        found.append(similarities.scatter(1, own, -torch.inf).topk(available, dim=1).indices)
    nearest = torch.cat(found)
    return nearest[:, torch.arange(k, device=rows.device) % available]
