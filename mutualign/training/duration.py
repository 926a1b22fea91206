"""How long training will take, estimated from one step of each stage on a few images."""

from __future__ import annotations

from dataclasses import replace

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages, spread
from mutualign.nn.distributed import alone
from mutualign.nn.randomness import separate_draws
from mutualign.recipes import Recipe
from mutualign.training.batches import Batches, steps_per_epoch
from mutualign.training.fabric import Fabric
from mutualign.training.loop import StageTrainer
from mutualign.training.setup import build_classifier, build_method, standard_modes

FEW = 8  # images of each domain in the step that is timed


def estimate_seconds(
    recipe: Recipe, source: LabelledImages, target: UnlabelledImages, shape: ImageShape, classes: int, fabric: Fabric
) -> float:
    """Estimate the seconds that a recipe's training steps take here, in proportion to the images of a step.

    Trains a network of its own, in this process alone, and leaves torch's global generator as it was. Evaluation comes
    on top.
    """
    total = 0.0
    some, others = source.subset(spread(len(source), 2 * FEW)), target.subset(spread(len(target), 2 * FEW))
    with alone(), separate_draws(fabric.device), standard_modes():
        classifier = build_classifier(recipe, shape, classes)
        for index, stage in enumerate(recipe.stages):
            method = build_method(stage, classifier)
            used = some.to(fabric.device) if method.uses_source else None
            unlabelled = others.to(fabric.device) if method.uses_target else None
            few = min(stage.batch_size, FEW)
            batches = Batches(used, unlabelled, shape.channels, few, 0, index)
            trainer = StageTrainer(index, replace(stage, batch_size=few), 0, method, batches, fabric)
            trainer.step()  # the first one prepares kernels and, in some methods, looks at the target
            before = trainer.train_seconds
            trainer.step()
            images = len(source if method.uses_source else target)
            steps = stage.epochs * steps_per_epoch(images, stage.batch_size, stage.epoch_steps)
            total += (trainer.train_seconds - before) * steps * stage.batch_size / few
    return total
