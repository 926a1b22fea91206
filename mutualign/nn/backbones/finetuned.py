"""A pretrained network that is trained on, with a new layer on top: what `--finetune` trains."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mutualign.nn.backbones.base import Backbone, build_backbone, register_family
from mutualign.nn.distributed import draw_rows
from mutualign.nn.layers import BatchNorm1d, Dropout

FINETUNE = "finetune:"
COLOUR = 3  # channels of pretrained networks; grey images are repeated
LEAST_SIDE = 0.7  # of a random crop, of the image's side


@register_family(FINETUNE)
class Finetuned(Backbone):
    """A network, then linear to 512 - batch norm - ReLU - dropout 0.5.

    In training, each image is seen as a random crop, mirrored half of the time; in evaluation as it is. A recipe's
    `backbone_lr_factor` applies to the network, and not to the layer on top, which starts from random weights.
    """

    feature_dim = 512

    def __init__(self, name: str, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.network = build_backbone(name, max(channels, COLOUR), height, width)
        self.linear = nn.Linear(self.network.feature_dim, self.feature_dim, bias=False)
        self.norm = BatchNorm1d(self.feature_dim)
        self.dropout = Dropout(0.5)

    def forward(self, images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        colour = images.expand(-1, COLOUR, -1, -1) if images.shape[1] == 1 else images
        seen = random_crops(colour) if self.training else colour
        return self.dropout(F.relu(self.norm(self.linear(self.network(seen)))))  # type: ignore[no-any-return]

    def slower_parameters(self) -> Iterable[nn.Parameter]:
        return self.network.parameters()


def random_crops(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """Return a random crop of each image, with a side of 0.7 to 1 of the image's, scaled back; half are mirrored.

    Draws from torch's global generator; processes that share a batch draw for all of it, and use their part. Positions
    are float32 under autocast too: in bf16 they would be off by up to half a pixel of a photo.
    """
    size, x, y, coin = draw_rows(len(images), lambda n: torch.rand(4, n, device=images.device).T).T
    side = LEAST_SIDE + (1 - LEAST_SIDE) * size
    across, down = [(1 - side) * (2 * place - 1) for place in (x, y)]
    mirror = torch.where(coin < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(side)
    rows = [torch.stack(row, dim=1) for row in ((side * mirror, zero, across), (zero, side, down))]
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
        crops = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return crops.to(images.dtype)
