"""A teacher whose weights are an exponential moving average of a student's."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mutualign.nn.distributed import shared

Student = TypeVar("Student", bound=nn.Module)


class EMATeacher(nn.Module, Generic[Student]):
    """A copy of the student that follows it slowly and stays in evaluation mode.

    After update t (from 0) the weights are d * own + (1 - d) * student with d = min(1 - 1 / (t + 1), decay): a plain
    mean at first, then a window of about 1 / (1 - decay) steps. Floating-point buffers, such as running statistics,
    are averaged like weights; other buffers are copied. The number of updates is a buffer, so a checkpoint holds it.

    `torch.optim.swa_utils.AveragedModel` is not used: it reads its counter back from the device in every update, which
    stalls a GPU, follows `train()`, and cannot average buffers without averaging integer counters as well.
    """

    updates: Tensor
    model: Student

    def __init__(self, student: Student, decay: float = 0.99) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count = 0  # the value of `updates`, known without asking the device

    def train(self, mode: bool = True) -> EMATeacher[Student]:
        """Keep evaluation mode, whatever the parent module is set to."""
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the weights one step toward the student's."""
        weight = max(1 / (self._count + 1), 1 - self.decay)
        torch._foreach_lerp_(list(self.model.parameters()), list(student.parameters()), weight)
        for own, other in zip(self.model.buffers(), student.buffers(), strict=True):
            if own.is_floating_point():
                own.lerp_(other, weight)
            else:
                own.copy_(other)
        self._count += 1
        self.updates += 1

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return shared(self.model, images)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._count = int(self.updates)
