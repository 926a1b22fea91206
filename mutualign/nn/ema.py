"""A teacher whose weights are the exponential moving average of a student's."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from mutualign.nn.sharing import shared

Student = TypeVar("Student", bound=nn.Module)


class EMATeacher(nn.Module, Generic[Student]):
    """A copy of the student that follows it slowly and never drops out.

    After update t (from 0) the weights are d x own + (1 - d) x student with d = min(1 - 1/(t+1), decay): a plain mean
    at first, then a window of about 1 / (1 - decay) steps. Running statistics move with the weights, so that they fit
    them; other buffers are copied. The count of updates is a buffer, so a checkpoint holds it.
    """

    updates: Tensor
    model: Student

    def __init__(self, student: Student, decay: float = 0.99) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> EMATeacher[Student]:
        """A teacher is always in evaluation mode, whatever its parent is set to."""
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the weights one step toward the student's."""
        weight = max(1 / (int(self.updates) + 1), 1 - self.decay)
        torch._foreach_lerp_(list(self.model.parameters()), list(student.parameters()), weight)
        for mine, theirs in zip(self.model.buffers(), student.buffers(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)
        self.updates += 1

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return shared(self.model, images)
