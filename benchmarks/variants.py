"""How `fast`, tuned on one variant of MNIST-M, does on others: larger digits, other blends, photos and polarity.

Recipes are shortened and train on slices. Rows are comparable with each other, not with the tables of results.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import results_file
import torch
import torch.nn.functional as F
import tyro
from blind_tasks import Change, warped
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from mutualign.data.datasets.bsds500 import Photos, load_bsds500
from mutualign.data.datasets.mnist import DIGIT_NAMES, load_mnist
from mutualign.data.datasets.mnistm import blend
from mutualign.data.fetch.data_files import data_folder
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, spread
from mutualign.data.types import UnlabelledImages as Images
from mutualign.errors import MutualignError
from mutualign.nn.randomness import generator
from mutualign.recipes import Recipe, load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.statistics import Interval

SIDE = 28
Crops = Callable[[Photos, int, torch.Generator], Tensor]  # of photos, bytes [n, 28, 28, 3]


def crops(photos: Photos, n: int, rng: torch.Generator) -> Tensor:
    """Random crops of photos, as in MNIST-M."""
    return photos.crops(n, SIDE, SIDE, rng)


def magnified(photos: Photos, n: int, rng: torch.Generator) -> Tensor:
    """Crops of a quarter of the side: smooth backgrounds."""
    small = photos.crops(n, SIDE // 4, SIDE // 4, rng).permute(0, 3, 1, 2).float()
    return F.interpolate(small, size=(SIDE, SIDE), mode="bilinear").round().byte().permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Variant:
    """What differs from MNIST-M: the digits, the backgrounds, the blend of both, and the image made of them."""

    digits: Change = lambda images, rng: images
    backgrounds: Crops = crops
    blend: Callable[[Tensor, Tensor], Tensor] = blend  # of backgrounds and digits
    after: Callable[[Tensor], Tensor] = lambda images: images

    def images(self, digits: Tensor, photos: Photos, rng: torch.Generator) -> Images:
        """Make an image of each digit [n, 28, 28, 1]."""
        changed = self.digits(digits.permute(0, 3, 1, 2).float() / 255, rng).clamp(0, 1)
        grey = (255 * changed).round().byte().permute(0, 2, 3, 1)
        return Images(self.after(self.blend(self.backgrounds(photos, len(grey), rng), grey)).contiguous())


VARIANTS = {
    "mnist-m": Variant(),
    "digits x 1.3": Variant(warped(scale=1.3)),
    "digits x 0.7": Variant(warped(scale=0.7)),
    "inverted": Variant(after=lambda images: 255 - images),
    "white digits": Variant(blend=torch.maximum),
    "black digits": Variant(blend=lambda patches, digits: torch.minimum(patches, 255 - digits)),
    "faint digits": Variant(digits=lambda images, rng: images / 2),
    "magnified photos": Variant(backgrounds=magnified),
    "noise": Variant(backgrounds=lambda photos, n, rng: _bytes((n, SIDE, SIDE, 3), rng) // 2),
    "one colour each": Variant(backgrounds=lambda photos, n, rng: _bytes((n, 1, 1, 3), rng).expand(n, SIDE, SIDE, 3)),
}


def _bytes(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.randint(256, shape, generator=rng, dtype=torch.uint8)


@dataclass(frozen=True)
class Settings:
    """Train recipes in short on variants of MNIST-M."""

    data: Path | None = None
    """folder of the data files; default: $MUTUALIGN_DATA, else the user's cache folder"""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """which ones"""
    recipes: tuple[str, ...] = ("fast", "benchmarks/ablation/former-fast.toml")
    """names or files of recipes"""
    seeds: int = 3
    """how many seeds: 0, 1, 2, ..."""
    images: int = 6000
    """training images of either domain"""
    test_images: int = 2000
    """test images of either domain"""
    steps: int = 160
    """steps of training, in whole passes"""
    out: Path = Path("results/variants.json")
    """where the numbers are written, after each run; the runs that it has are not repeated"""


def load(name: str, settings: Settings) -> Task:
    """Make a task: MNIST, and a variant over the photos of BSDS500, train and test apart as in `mnist-mnistm`."""
    folder, source, target = data_folder(settings.data), [], []
    sizes = (settings.images, settings.test_images)
    for split, digits, size in zip(("train", "test"), load_mnist(folder, "variants"), sizes, strict=True):
        rows, rng = spread(len(digits), size), generator("variants", name, split)
        pixels, labels = digits.images.pixels[rows], digits.labels[rows]
        source.append(LabelledImages(Images(pixels), labels))
        images = VARIANTS[name].images(pixels, load_bsds500([split], "variants", folder), rng)
        target.append(TargetDataset(images, labels))
    (train, test), (target_train, target_test) = source, target
    return Task(name, f"benchmarks/variants.py, {name}", DIGIT_NAMES, train, test, target_train, target_test)


def measure(case: dict[str, Any], recipe: Recipe, task: Task) -> dict[str, Any]:
    """Train one recipe on one variant, and return the row."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.start(recipe, task, case["seed"], Path(folder) / "run")
        experiment.run()
        result = experiment.folder.require_result()
    last = result.stages[-1].last
    found = {"target_accuracy": last.target_accuracy, "source_accuracy": last.source_accuracy}
    return case | found | {"hardware": result.hardware}


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out one line per variant, with 95 % intervals over seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row["variant"], {}).setdefault(row["recipe"], []).append(row["target_accuracy"])
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    shown = Table("variant", *(f"{name}, target, %" for name in recipes))
    for variant, by_recipe in found.items():
        cells = (by_recipe.get(name, []) for name in recipes)
        shown.add_row(variant, *(Interval.of(values).percent() if values else "" for values in cells))
    return shown


def main() -> None:
    """Train what the results file lacks."""
    settings = tyro.cli(Settings, description=Settings.__doc__)
    origin, rows = results_file.origin(), results_file.rows_of(settings.out)
    short = ["stages.0.epochs=1", f"stages.0.epoch_steps={settings.steps}", "stages.0.batch_size=64"]
    try:
        recipes = {load_recipe(name, []).name: load_recipe(name, short) for name in settings.recipes}
        cases = [
            {"variant": variant, "recipe": recipe, "seed": seed}
            for seed, variant, recipe in product(range(settings.seeds), settings.variants, recipes)
        ]
        done = [{key: row[key] for key in ("variant", "recipe", "seed")} for row in rows]
        load_once = lru_cache(maxsize=1)(load)
        for case in track([case for case in cases if case not in done], console=Console(stderr=True)):
            rows.append(measure(case, recipes[case["recipe"]], load_once(case["variant"], settings)))
            results_file.write(settings.out, origin, rows)
    except MutualignError as error:
        raise SystemExit(f"benchmarks/variants.py: {error}") from None
    Console().print(table(rows))


if __name__ == "__main__":
    main()
