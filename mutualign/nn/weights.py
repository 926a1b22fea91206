"""Pretrained weights of any network: published ones by its name, timm's from their hub, or those of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.io.hashing import sha256_of
from mutualign.nn.backbones.base import Backbone, build_backbone
from mutualign.nn.backbones.efficientnet_lite import VARIANTS, EfficientNetLite
from mutualign.nn.backbones.finetuned import FINETUNE, Finetuned
from mutualign.nn.backbones.timm import TIMM, hub_file, load_backbone_weights, trained_side
from mutualign.nn.pretrained import PUBLISHED, load_published, require_pretrained
from mutualign.nn.randomness import separate_draws

PRETRAINED = "pretrained"  # instead of a file: the weights that the network's authors publish


@dataclass(frozen=True)
class NetworkWeights:
    """A network by name, and its weights: `pretrained`, or the path of a .safetensors file of a timm network."""

    network: str
    weights: str = PRETRAINED
    sha256: str = ""  # of the file's content, once it is known

    @property
    def is_published(self) -> bool:
        """Whether the weights come from a package whose content is pinned."""
        return self.network.removeprefix(FINETUNE) in PUBLISHED

    def check(self) -> None:
        """Raise MutualignError if there are no such weights, as far as the names say."""
        network = self.network.removeprefix(FINETUNE)
        if not self.weights:
            raise MutualignError(
                f"{network} needs pretrained weights\n"
                "  hint:    add --weights pretrained, or --weights FILE.safetensors"
            )
        if network.startswith(TIMM):
            return
        if self.weights != PRETRAINED:
            raise MutualignError(
                f'weights from a file are for networks of timm, not for "{network}"\n'
                "  hint:    leave them out, or name the network that the file belongs to: --backbone timm:NAME"
            )
        require_pretrained(network)

    @property
    def side(self) -> int:
        """The side, in pixels, of the images that the network was trained on."""
        network = self.network.removeprefix(FINETUNE)
        return trained_side(network) if network.startswith(TIMM) else VARIANTS[network].side

    @property
    def digest(self) -> str:
        """The SHA-256 of the file with the weights. Raises MutualignError as `file` does."""
        network = self.network.removeprefix(FINETUNE)
        return PUBLISHED[network].sha256 if self.is_published else sha256_of(self.file())

    def file(self) -> Path:
        """Return the file of a timm network's weights, which timm's hub keeps on this machine.

        Raises MutualignError if it cannot be fetched, or is not the one that a run started with.
        """
        path = hub_file(self.network) if self.weights == PRETRAINED else Path(self.weights)
        if self.sha256 and path.is_file() and (found := sha256_of(path)) != self.sha256:
            raise MutualignError(
                f"{path}: other weights than those the run started with\n"
                f"  then     SHA-256 {self.sha256}\n  now      SHA-256 {found}\n"
                "  hint:    put the former file there, or start a new run"
            )
        return path

    def load(self) -> Backbone:
        """Build the network for images of its side, with its weights, in evaluation mode and frozen.

        torch's generator is left as it was. Raises MutualignError if the weights are missing or of another network.
        """
        self.check()
        with separate_draws():
            network = build_backbone(self.network, 3, self.side, self.side)
        self.load_into(network)
        return network.eval().requires_grad_(False)

    def load_into(self, backbone: Backbone) -> None:
        """Load the weights into a network that was built for images of any shape."""
        if isinstance(backbone, Finetuned):
            inner = NetworkWeights(self.network.removeprefix(FINETUNE), self.weights, self.sha256)
            inner.load_into(backbone.network)
        elif isinstance(backbone, EfficientNetLite):
            load_published(backbone)
        else:
            load_backbone_weights(backbone, self.file())
