"""A teacher whose weights are an exponential moving average of a student's."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mutualign.nn.distributed import shared

Student = TypeVar("Student", bound=nn.Module)


class EMATeacher(nn.Module, Generic[Student]):
    """A copy of the student whose weights follow the student's slowly; it stays in evaluation mode.

    Update t (from 0) sets the weights to d * own + (1 - d) * student, with d = min(1 - 1 / (t + 1), decay): a plain
    mean at first, then a window of about 1 / (1 - decay) steps. Floating-point buffers, such as running statistics,
    are averaged like weights; other buffers are copied. The number of updates is a buffer, so it is in `state_dict()`.

    `torch.optim.swa_utils.AveragedModel` is not used: it reads its counter back from the device in every update, which
    stalls a GPU; it follows `train()`; and it averages either no buffers or integer counters too.
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
        pairs = list(zip(_tensors(self.model), _tensors(student), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        if averaged:
            torch._foreach_lerp_([own for own, _ in averaged], [other for _, other in averaged], weight)
        for own, other in pairs:
            if not own.is_floating_point():
                own.copy_(other)
        self._count += 1
        self.updates += 1

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return shared(self.model, images)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._count = int(self.updates)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
