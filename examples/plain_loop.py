"""Gradient reversal and the mutual-information loss in a plain PyTorch loop, without a download.

Target accuracy 79.1 ± 1.7 without the two losses, 85.1 ± 1.1 with them; paired gain 6.0 ± 1.8
points (n = 5 seeds, 95 % intervals, last step). Both together take about 40 s on one CPU thread.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mutualign import jsd_mutual_information, reverse_gradient, sample_pairs
from mutualign.data.augment import AugmentConfig, strong_views
from mutualign.data.datasets import find_task
from mutualign.data.task import Task
from mutualign.data.types import to_floats
from mutualign.evaluation.target_labels import source_accuracy, target_accuracy
from mutualign.nn.ema import EMATeacher

BATCH, RATE = 64, 4e-3  # images of each domain per step; highest learning rate
CONFIDENT = 0.8  # top probability from which the teacher's label is used
# Moved, recoloured, inverted; in both runs, so that they differ by the losses only.
VIEWS = AugmentConfig(solarise=0.0)


def train(task: Task, epochs: int, adapt: bool, seed: int) -> nn.Module:
    """Train a classifier on the labelled source; with `adapt`, adapt it to the target too."""
    torch.manual_seed(seed)
    source, target = (
        to_floats(part.images.pixels, 3) for part in (task.source_train, task.target_train)
    )
    features = nn.Sequential(
        nn.InstanceNorm2d(3),
        *(nn.Conv2d(3, 32, 5), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 5 * 5, 128), nn.ReLU()),
    ).to(memory_format=torch.channels_last)  # faster on a CPU
    head = nn.Linear(128, 10)
    discriminator = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1))
    # The critic scores a pair of features.
    critic = nn.Sequential(nn.Linear(2 * 128, 128), nn.ReLU(), nn.Linear(128, 1))
    classifier = nn.Sequential(features, head)
    teacher = EMATeacher(classifier)

    steps = epochs * (len(source) // BATCH)
    optimiser = torch.optim.Adam(nn.ModuleList([classifier, discriminator, critic]).parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for step in range(steps):
        rows = torch.randint(len(source), (BATCH,))
        target_batch = target[torch.randint(len(target), (BATCH,))]
        labels = task.source_train.labels[rows]
        seen = features(strong_views(torch.cat([source[rows], target_batch]), VIEWS))
        of_source, of_target = seen.chunk(2)
        loss = F.cross_entropy(head(of_source), labels)
        if adapt:
            # Gradient reversal: the discriminator learns to separate the domains, the features
            # learn to prevent it.
            domain = discriminator(reverse_gradient(seen, strength=step / steps)).squeeze(1)
            is_source = (torch.arange(2 * BATCH) < BATCH).float()
            loss += 0.3 * F.binary_cross_entropy_with_logits(domain, is_source)

            # Mutual information: joint pairs share a class across the domains, marginal do not.
            confidence, pseudo_labels = teacher(target_batch).softmax(1).max(1)
            pairs = sample_pairs(labels, pseudo_labels, confidence >= CONFIDENT, classes=10)
            anchors = of_target[pairs.target]
            joint, marginal = (
                critic(torch.cat([anchors, of_source[rows]], dim=1)).squeeze(1)
                for rows in (pairs.source, pairs.other_source)
            )
            loss += jsd_mutual_information(joint, marginal, pairs.valid)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        teacher.update(classifier)
    return teacher.model


def main() -> None:
    """Train with and without the two losses; use target labels once, to evaluate at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    task = find_task("digits").load(Path("data"))  # embedded: nothing is read from this folder
    for name, adapt in {"source only": False, "adapted": True}.items():
        model = train(task, arguments.epochs, adapt, arguments.seed)
        with torch.no_grad():
            source, target = (
                model(to_floats(part.images.pixels, 3))
                for part in (task.source_test, task.target_test)
            )
        print(
            f"{name:<12} source {source_accuracy(source, task.source_test):6.1%}"
            f"  target {target_accuracy(target, task.target_test):6.1%}"
        )


if __name__ == "__main__":
    main()
