"""The contract of a method: what the training loop asks of it, and what measurement and audit ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mutualign.data.types import Batch
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.distributed import shared

Losses = dict[str, Float[Tensor, ""]]
Metrics = dict[str, Float[Tensor, ""]]

ALL = "all"  # the only player of most methods


@dataclass(frozen=True)
class Update:
    """One optimiser step: the losses to minimise, and the player whose parameters move."""

    player: str
    losses: Losses
    metrics: Metrics = field(default_factory=dict)

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum of the losses."""
        return torch.stack([loss.float() for loss in self.losses.values()]).sum()


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate: the stage's, times `lr_factor`."""

    parameters: Sequence[nn.Parameter]
    lr_factor: float = 1.0


class PseudoLabeller(NamedTuple):
    """The network that labels target images, and the top probability from which its labels are used."""

    model: Classifier
    threshold: float


class Adversary(NamedTuple):
    """A network trained against the features, and the name of the loss behind its gradient reversal."""

    network: nn.Module
    loss: str


class Method(nn.Module):
    """A domain adaptation method over a classifier.

    Most methods override `forward` only. The loss is computed inside `forward`, so that `torch.compile` sees all of
    it. Everything a method owns (discriminator, critic, teacher) is a submodule or a buffer, so that `state_dict()` is
    complete and a run can resume exactly. `progress` is a 0-d tensor in [0, 1], so that schedules do not recompile.
    With several processes, each one gets the whole batch; `features` shares the work of the network among them.
    """

    uses_source: ClassVar[bool] = True
    uses_target: ClassVar[bool] = True

    def __init__(self, classifier: Classifier, config: Any = None) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        """Return the weighted losses, to be summed, and the metrics, to be logged."""
        raise TypeError(f"{type(self).__name__} must override forward or updates")

    def updates(self, batch: Batch, progress: Float[Tensor, ""]) -> Iterator[Update]:
        """Yield the updates of one training step; each is computed after the previous one has been applied.

        Override this for alternating optimisation, or yield nothing for a method without gradients.
        """
        yield Update(ALL, *self(batch, progress))

    def parameter_groups(self) -> dict[str, list[ParameterGroup]]:
        """Return the trainable parameters by player; a method without an optimiser returns an empty dictionary."""
        return {ALL: [ParameterGroup([weight for weight in self.parameters() if weight.requires_grad])]}

    def begin_epoch(self, look: Callable[[], Outputs]) -> None:
        """Prepare an epoch. `look` gives the classifier's outputs on all target training images, in their order.

        What is computed here must be kept in buffers, because a run may resume in the middle of an epoch. A buffer
        whose size depends on the data starts empty and is listed in `resizable_buffers`.
        """

    def after_step(self) -> None:
        """Update what has no gradient after each training step: teachers, queues, running statistics."""

    @property
    def output_model(self) -> Classifier:
        """The network that the stage produces: measured, kept, exported."""
        return self.classifier

    @property
    def pseudo_labeller(self) -> PseudoLabeller | None:
        """What labels target images in this method, if anything does; the audit compares it with the classifier."""
        return None

    @property
    def adversary(self) -> Adversary | None:
        """The discriminator behind a gradient reversal, if there is one; the audit checks the reversal."""
        return None

    def features(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        """Return the classifier's features of images; several processes compute them together."""
        return shared(self.classifier.features, images)

    def warm_start_from(self, previous: Method) -> Method:
        """Copy the weights of parts that an earlier stage trained too, such as a discriminator, and return self.

        Only parts with the same name and type are copied; classifier and teacher are not, since the classifier is
        shared between stages and a teacher starts from it.
        """
        earlier = dict(previous.named_children())
        for name, part in self.named_children():
            if name not in ("classifier", "teacher") and type(part) is type(earlier.get(name)):
                part.load_state_dict(earlier[name].state_dict())
        return self

    resizable_buffers: ClassVar[frozenset[str]] = frozenset()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self.resizable_buffers & {key.removeprefix(prefix) for key in state_dict}:
            setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def mean_of(flags: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the share of flags that are set, detached."""
    return flags.float().mean().detach()


def accuracy(logits: Float[Tensor, "n classes"], labels: Tensor) -> Float[Tensor, ""]:
    """Return the share of rows whose largest logit is the label's, detached."""
    return mean_of(logits.argmax(1) == labels)
