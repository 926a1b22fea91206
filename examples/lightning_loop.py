"""Gradient reversal and the mutual-information loss in a LightningModule, without a download.

Target accuracy 77.2 ± 3.9 without the two losses, 82.6 ± 4.1 with them; paired gain 5.4 ± 5.6
points, and one seed of the five lost 1.1 (95 % intervals, last step). Both together take about 55 s
on one CPU thread.
"""

import argparse
import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from mutualign import jsd_mutual_information, reverse_gradient, sample_pairs
from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.datasets import find_task
from mutualign.data.types import Batch, to_floats
from mutualign.evaluation.target_labels import target_accuracy
from mutualign.nn.backbones import TwoBlockCNN
from mutualign.nn.classifier import Classifier
from mutualign.nn.ema import EMATeacher
from mutualign.nn.heads import ConcatenatingCritic, DomainDiscriminator, Projection
from mutualign.training.batches import Batches


class Adaptation(pl.LightningModule):
    """A classifier and its moving average, which labels the target; `adapt` adds the two losses."""

    def __init__(self, adapt: bool) -> None:
        super().__init__()
        self.adapt = adapt
        self.classifier = Classifier(TwoBlockCNN(3, 28, 28), classes=10)
        self.teacher = EMATeacher(self.classifier)
        self.discriminator = DomainDiscriminator(feature_dim=128)
        self.projection, self.critic = Projection(feature_dim=128), ConcatenatingCritic()

    def training_step(self, batch: Batch, step: int) -> Tensor:
        features = self.classifier.features(strong_views(batch.images, AugmentConfig(solarise=0.0)))
        loss = F.cross_entropy(self.classifier.head(features[: batch.n_source]), batch.labels)
        if not self.adapt:
            return loss
        progress = self.global_step / self.trainer.max_steps
        domain = self.discriminator(reverse_gradient(features, progress))
        loss += 0.3 * F.binary_cross_entropy_with_logits(domain, batch.is_source)

        confidence, pseudo_labels = self.teacher(batch.target).softmax(1).max(1)
        pairs = sample_pairs(batch.labels, pseudo_labels, confidence >= 0.8, classes=10)
        projected = self.projection(features)
        source, target = projected[: batch.n_source], projected[batch.n_source :][pairs.target]
        joint, marginal = (
            self.critic(target, source[rows]) for rows in (pairs.source, pairs.other_source)
        )
        return loss + jsd_mutual_information(joint, marginal, pairs.valid)

    def on_train_batch_end(self, *_: object) -> None:
        self.teacher.update(self.classifier)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = torch.optim.Adam(self.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, self.trainer.max_steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    """Train with and without the two losses; use target labels once, to evaluate at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # no report of accelerators
    warnings.filterwarnings("ignore", "Found .* in eval mode")  # the teacher, on purpose
    task = find_task("digits").load(Path("data"))  # embedded: nothing is read from this folder
    batches = Batches(task.source_train, task.target_train.images, 3, 64, arguments.seed, stage=0)
    steps = arguments.epochs * batches.steps_per_epoch
    for name, adapt in {"source only": False, "adapted": True}.items():
        pl.seed_everything(arguments.seed, verbose=False)
        model = Adaptation(adapt)
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, (batches[step] for step in range(steps)))
        logits = model.teacher(to_floats(task.target_test.images.pixels, 3))
        print(f"{name:<12} target {target_accuracy(logits, task.target_test):6.1%}")


if __name__ == "__main__":
    main()
