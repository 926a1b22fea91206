"""What every algorithm is: a module whose forward gives weighted losses and metrics."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mutualign.data.images import Batch
from mutualign.nn.backbones import Classifier
from mutualign.nn.ema import EMATeacher
from mutualign.nn.sharing import shared

Losses = dict[str, Float[Tensor, ""]]
Metrics = dict[str, Float[Tensor, ""]]


class Algorithm(nn.Module):
    """A method of adaptation over a classifier.

    The loss is computed inside `forward`, so that DDP and `torch.compile` see all of it, and whatever the method owns
    (discriminator, critic, teacher) is a submodule, so that `state_dict()` is complete. Of several processes each has
    the whole batch; `features` and the teacher share the work of the network among them.
    """

    uses_target = True
    teacher: EMATeacher[Classifier] | None  # what labels the target, if the method has one,
    threshold: float  # where its top probability is at least this

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.teacher = None
        self.threshold = 0.0

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        """Losses, weighted and ready to be summed, and metrics to be logged; `progress` of the stage is in [0, 1]."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def features(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        """The classifier's features of images, computed by all processes together where there are several."""
        return shared(self.classifier.features, images)

    @property
    def adapted(self) -> Classifier:
        """The network that the stage gives: what is scored, kept and evaluated."""
        return self.classifier

    def after_step(self) -> None:
        """Called after each optimiser step: the place to move a teacher."""

    def inherit(self, previous: Algorithm) -> Algorithm:
        """Go on with the parts that an earlier stage over the same classifier has trained, such as a discriminator.

        A part of another kind, such as another method's critic, begins anew.
        """
        earlier = dict(previous.named_children())
        for name, part in self.named_children():
            if name not in ("classifier", "teacher") and type(part) is type(earlier.get(name)):
                part.load_state_dict(earlier[name].state_dict())
        return self


def mean_of(flags: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """The share of flags that are set, detached."""
    return flags.float().mean().detach()


def accuracy(logits: Float[Tensor, "n classes"], labels: Tensor) -> Float[Tensor, ""]:
    """The share of rows whose largest logit is the label's."""
    return mean_of(logits.argmax(1) == labels)
