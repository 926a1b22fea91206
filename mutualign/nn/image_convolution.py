"""The convolution of colour images: in bf16 on CPU, its gradient does not stall when other programs use the cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ImageConv2d(nn.Conv2d):
    """torch's convolution of stride 1 without padding; trained in bf16 on CPU, the kernel's columns become channels.

    For the weights' bf16 gradient of a convolution of 3 channels, oneDNN 3.12 shares the kernels among the threads,
    which then meet at two spinning barriers per image (`balance` in jit_avx512_core_bf16_conv_kernel.cpp). Where a
    thread has to wait for its core, each barrier may last a time slice, and a step of 30 ms over a second. With 3 x 5
    channels and kernels of one column, two threads share the images instead, without barriers, in the same time.
    """

    def __init__(self, channels: int, kernels: int, side: int, bias: bool = True) -> None:
        super().__init__(channels, kernels, side, bias=bias)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n kernels rows columns"]:
        bf16_on_cpu = images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not (bf16_on_cpu and torch.is_grad_enabled() and self.in_channels == 3):
            return super().forward(images)
        values = images.to(torch.get_autocast_dtype("cpu")).permute(0, 2, 3, 1)
        windows = values.unfold(2, self.kernel_size[1], 1)  # [n, height, columns, channels, side], overlapping
        windows = windows.transpose(3, 4).flatten(3).contiguous()  # [n, height, columns, side * channels]
        weight = self.weight.permute(0, 3, 1, 2).flatten(1, 2)  # [kernels, side * channels, side]
        return F.conv2d(windows.permute(0, 3, 1, 2), weight[..., None], self.bias)
