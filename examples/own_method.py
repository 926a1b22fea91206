"""A method of your own in one file: Deep CORAL, compared with source only, without a download.

Target accuracy at the last epoch 59.5 ± 3.3 with source only, 73.7 ± 4.0 with Deep CORAL; paired
gain 14.2 ± 1.6 points (n = 5 seeds, 95 % intervals). Both together take about 30 s on one CPU
thread.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mutualign.data.datasets import find_task
from mutualign.data.types import Batch
from mutualign.io.numbers import percent
from mutualign.methods import Losses, Method, Metrics, register_method
from mutualign.recipes import Recipe, Stage
from mutualign.runs.experiment import Experiment
from mutualign.runs.history import SelectedEpoch


@dataclass(frozen=True)
class CORALConfig:
    """Settings of Deep CORAL."""

    weight: float = 10.0  # of the distance between the covariances


@register_method("my_coral", CORALConfig)
class CORAL(Method):
    """Deep CORAL: logits with the same covariance in both domains.

    loss = cross-entropy on the source + weight x |C_S - C_T|^2 / (4 d^2)

    with C_S and C_T the covariances of the d logits over the source and the target rows of a
    batch, and |.| the Frobenius norm. Source: Sun and Saenko, "Deep CORAL", ECCV workshops 2016,
    eqs. 1 to 3.
    """

    config: CORALConfig

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits = self.logits(batch.images)
        source, target = logits[: batch.n_source], logits[batch.n_source :]
        distance = (source.T.cov() - target.T.cov()).square().sum() / (4 * logits.shape[1] ** 2)
        losses = {
            "class": F.cross_entropy(source, batch.labels),
            "coral": self.config.weight * distance,
        }
        return losses, {"distance": distance.detach()}


def recipe(method: str, epochs: int) -> Recipe:
    """Return the same network and number of steps for any method, with its default settings."""
    stage = Stage(method, epochs, epoch_steps=100)
    return Recipe(method, (stage,), backbone="two_block_cnn", precision="float32")


def shown(chosen: SelectedEpoch) -> str:
    """Format the target accuracy at an epoch."""
    return f"{percent(chosen.target_accuracy)} (epoch {chosen.epoch})"


def main() -> None:
    """Train both; print target accuracy at the last epoch and the one selected without labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    task = find_task("digits").load(Path("data"))  # embedded: nothing is read from this folder
    print("             target, last epoch   target, selected epoch")
    with TemporaryDirectory() as folder:
        for name in ("source_only", "my_coral"):
            # Runs in sibling folders, so that negative transfer is noticed.
            path = Path(folder, name, f"seed-{arguments.seed}")
            chosen = recipe(name, arguments.epochs)
            result = Experiment.start(chosen, task, arguments.seed, path).run()
            stage = result.stages[0]
            alarms = ", ".join(alarm.name for alarm in result.alarms)
            last, selected = shown(stage.last), shown(stage.selected)
            print(f"{name:<12} {last:<20} {selected:<22} {alarms}".rstrip())


if __name__ == "__main__":
    main()
