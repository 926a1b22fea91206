"""The contract of a method: what the training loop calls, and what measurement and audit read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mutualign.data.types import Batch
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.distributed import shared
from mutualign.nn.shapes import check_shapes

Losses = dict[str, Float[Tensor, ""]]
Metrics = dict[str, Float[Tensor, ""]]

ALL = "all"  # the only player of most methods


@dataclass(frozen=True)
class Update:
    """One optimiser step: the losses to minimise, and the player, or players, whose parameters it updates."""

    player: str | tuple[str, ...]
    losses: Losses
    metrics: Metrics = field(default_factory=dict)

    @property
    def players(self) -> tuple[str, ...]:
        """The players, each of which has an optimiser of its own."""
        return (self.player,) if isinstance(self.player, str) else self.player

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
    """The network that labels target images, and the lowest top probability at which its labels are used."""

    model: Classifier
    threshold: float


class Adversary(NamedTuple):
    """A discriminator behind gradient reversal, and the name of its loss."""

    network: nn.Module
    loss: str


class Method(nn.Module):
    """A domain adaptation method over a classifier.

    Most methods override `forward` only. It computes the losses too, so that `torch.compile` sees all of them.
    Everything that a method owns (discriminator, critic, teacher) is a submodule or a buffer: then `state_dict()` is
    complete, and a run resumes bit for bit. `progress`, from 0 to 1, is a 0-d tensor, so that schedules do not
    recompile. Each of several processes gets the whole batch; `self.features` divides the network's work among them.

    The settings that it is built with are `self.config`; a method that owns nothing else needs no `__init__`.

    A method without source images sets `uses_source = False`: its batches contain target images only. To freeze a part
    of the classifier, leave it out of `parameter_groups`; `requires_grad` would outlast the stage.
    """

    uses_source: ClassVar[bool] = True
    uses_target: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False  # turns, recolours or mixes images, which features are not
    needs_batch_norm: ClassVar[bool] = False  # does nothing in a network without
    graph_break: ClassVar[str] = ""  # why `torch.compile` cannot make one graph of `forward`, if it cannot

    config: Any  # the dataclass of its settings

    def __init__(self, classifier: Classifier, config: Any = None) -> None:
        super().__init__()
        self.classifier = classifier
        self.config = config

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        """Return the weighted losses, which the loop sums and minimises, and the metrics, which it logs."""
        raise TypeError(f"{type(self).__name__} must override forward or updates")

    def updates(self, batch: Batch, progress: Float[Tensor, ""]) -> Iterator[Update]:
        """Yield the updates of one training step; the loop applies each before it asks for the next.

        Override this for alternating optimisation, or yield nothing for a method without gradients.
        """
        yield Update(ALL, *self(batch, progress))

    def parameter_groups(self) -> dict[str, list[ParameterGroup]]:
        """Return the trainable parameters by player: one optimiser each. Empty for a method without an optimiser."""
        return {ALL: [ParameterGroup([weight for weight in self.parameters() if weight.requires_grad])]}

    def begin_epoch(self, look: Callable[[], Outputs]) -> None:
        """Prepare an epoch, before its first step.

        `look()` returns the classifier's outputs on all target training images; `batch.target_rows` are rows of them.
        Keep results in buffers, because a run may resume within an epoch. A buffer whose size depends on the data
        starts empty and is named in `resizable_buffers`.
        """

    def after_step(self) -> None:
        """Update what has no gradient, after each training step: teachers, queues, running statistics."""

    @property
    def output_model(self) -> Classifier:
        """The network that is measured, saved and exported."""
        return self.classifier

    @property
    def pseudo_labeller(self) -> PseudoLabeller | None:
        """The source of pseudo-labels, if any; the audit compares it with the classifier."""
        return None

    @property
    def adversary(self) -> Adversary | None:
        """The discriminator behind gradient reversal, if any; the audit checks the reversal."""
        return None

    def features(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        """Compute the classifier's features; several processes divide the work."""
        return shared(self.classifier.features, images)

    def logits(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """Compute the classifier's logits; several processes divide the backbone's work."""
        return self.classifier.head(self.features(images))  # type: ignore[no-any-return]

    def warm_start_from(self, previous: Method) -> Method:
        """Copy the weights of parts that the previous stage has too, such as a discriminator, and return self.

        Parts match by name, type and shapes, and so do buffers, such as the projections that a discriminator was
        trained on. The classifier is shared between stages; a teacher starts from it.
        """
        earlier = dict(previous.named_children())
        for name, part in self.named_children():
            if name not in ("classifier", "teacher") and _same_kind(part, earlier.get(name)):
                part.load_state_dict(earlier[name].state_dict())
        buffers = dict(previous.named_buffers(recurse=False))
        for name, buffer in self.named_buffers(recurse=False):
            if name not in self.resizable_buffers and name in buffers and buffer.shape == buffers[name].shape:
                buffer.copy_(buffers[name])
        return self

    resizable_buffers: ClassVar[frozenset[str]] = frozenset()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self.resizable_buffers & {key.removeprefix(prefix) for key in state_dict}:
            setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _same_kind(part: nn.Module, other: nn.Module | None) -> bool:
    """Whether two modules have the same type, and tensors of the same names and shapes."""
    shapes = [
        {name: value.shape for name, value in one.state_dict().items()} for one in (part, other) if one is not None
    ]
    return type(part) is type(other) and shapes[0] == shapes[-1]


def mean_of(flags: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the share of flags that are set, detached."""
    return flags.float().mean().detach()


@check_shapes
def accuracy(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the share of rows whose largest logit is the label's, detached."""
    return mean_of(logits.argmax(1) == labels)
