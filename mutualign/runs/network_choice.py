"""The network that the command line chooses for a recipe: frozen, for its features, or trained as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mutualign.errors import MutualignError
from mutualign.nn.backbones import TIMM
from mutualign.nn.backbones.finetuned import FINETUNE
from mutualign.nn.pretrained import PUBLISHED
from mutualign.recipes import Recipe, load_recipe

BACKBONE_FACTOR = 0.1  # of the learning rate, for the pretrained layers
MOST_AT_ONCE = 32  # images of each domain in a step: all layers need memory for each of them
FINETUNE_LR = 1e-3


@dataclass(frozen=True)
class NetworkChoice:
    """What `--backbone`, `--weights` and `--finetune` say."""

    backbone: str | None = None
    weights: str | None = None
    finetune: bool = False

    def apply(self, name: str, overrides: Iterable[str] = ()) -> Recipe:
        """Load a recipe with overrides and this choice.

        A network with pretrained weights takes the place of the one whose features the recipe trains on, if there is
        one; any other takes the place of the recipe's backbone. Raises MutualignError for an unknown recipe, override
        or network, and if there is no pretrained network to fine-tune.
        """
        given = tuple(overrides)
        plain = load_recipe(name, given)
        changes = []
        if self.backbone is not None:
            frozen = plain.features and (self.backbone in PUBLISHED or self.backbone.startswith(TIMM))
            changes.append(f"{'features' if frozen else 'backbone'}={self.backbone}")
        if self.weights is not None:
            changes.append(f"backbone_weights={self.weights}")
        if self.finetune:
            if not plain.features:
                raise MutualignError(
                    f"--finetune: recipe {plain.name} has no pretrained network\n"
                    "  hint:    leave it out, or choose a recipe for photos, such as photos"
                )
            network = self.backbone or plain.features
            changes = [one for one in changes if not one.startswith(("features=", "backbone="))]
            changes += [f"backbone={FINETUNE}{network}", "features=", "views=1", "precision=auto"]
            for number, stage in enumerate(plain.stages):
                changes += [
                    f"stages.{number}.batch_size={min(stage.batch_size, MOST_AT_ONCE)}",
                    f"stages.{number}.optim.lr={min(stage.optim.lr, FINETUNE_LR)}",
                    f"stages.{number}.optim.backbone_lr_factor={BACKBONE_FACTOR}",
                ]
        return load_recipe(name, (*changes, *given)) if changes else plain


NO_CHOICE = NetworkChoice()
