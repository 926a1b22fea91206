"""An own method in one file: Deep CORAL, compared with source only on digits that need no download.

Target accuracy at the last epoch 59.5 ± 3.3 by source only, 73.7 ± 4.0 by Deep CORAL; paired gain 14.2 ± 1.6 points
(n = 5 seeds, 95 % intervals). Both together take about 30 s on one CPU thread.
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
from mutualign.methods import METHODS, Losses, Method, Metrics
from mutualign.nn.classifier import Classifier
from mutualign.recipes import Recipe, Stage
from mutualign.runs.experiment import Experiment


@dataclass(frozen=True)
class CORALConfig:
    """Settings of Deep CORAL."""

    weight: float = 10.0  # of the distance between the covariances


class CORAL(Method):
    """Deep CORAL: logits whose covariance is the same in both domains.

    loss = cross-entropy on the source + weight x |C_S - C_T|^2 / (4 d^2)

    with C_S and C_T the covariances of the d logits over the source and the target rows of a batch, and |.| the
    Frobenius norm. Source: Sun and Saenko, "Deep CORAL", ECCV workshops 2016, eqs. 1 to 3.
    """

    def __init__(self, classifier: Classifier, config: CORALConfig) -> None:
        super().__init__(classifier)
        self.weight = config.weight

    def forward(self, batch: Batch, progress: Float[Tensor, ""]) -> tuple[Losses, Metrics]:
        logits = self.classifier(batch.images).float()
        source, target = logits[: batch.n_source], logits[batch.n_source :]
        distance = (source.T.cov() - target.T.cov()).square().sum() / (4 * logits.shape[1] ** 2)
        losses = {"class": F.cross_entropy(source, batch.labels), "coral": self.weight * distance}
        return losses, {"distance": distance.detach()}


METHODS["coral"] = (CORALConfig, CORAL)


def recipe(method: str, epochs: int) -> Recipe:
    """The same network and the same steps for any method, with its default settings."""
    stage = Stage(method, epochs, epoch_steps=100)
    return Recipe(method, "of an example", (stage,), backbone="two_block_cnn", precision="float32")


def main() -> None:
    """Train both, and print what the last epoch reaches and what the one chosen without target labels does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    task = find_task("digits").load(Path("data"))  # nothing is read from there
    print("             target, last epoch   target, selected epoch")
    with TemporaryDirectory() as folder:
        for name in ("source_only", "coral"):
            path = Path(folder, name, f"seed-{arguments.seed}")  # side by side: a run that does harm is told so
            result = Experiment.start(recipe(name, arguments.epochs), task, arguments.seed, path).run()
            last, selected, _ = result["stages"][0]["selections"].values()
            cells = [f"{chosen['target_accuracy']:.1%} (epoch {chosen['epoch']})" for chosen in (last, selected)]
            print(f"{name:<12} {cells[0]:<20} {cells[1]:<22}", *(alarm["name"] for alarm in result["alarms"]))


if __name__ == "__main__":
    main()
