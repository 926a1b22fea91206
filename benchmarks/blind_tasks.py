"""The tasks of the blind test: changes of scikit-learn's digits, pairs of Office-31, and random feature vectors.

Every task is a function of its name and a fixed seed. A coin with a fixed seed puts half of them into `tune`, to choose
settings on, and half into `blind`, which is run once after the settings are frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.nn.randomness import generator
from mutualign.recipes import Recipe, load_recipe, parse_recipe
from mutualign.runs.loading import load_task

Kind = Literal["images", "photos", "vectors"]
Half = Literal["tune", "blind"]
SIDE, CLASSES = 16, 10
SOURCE_TRAIN, SOURCE_TEST, TARGET_TRAIN = 500, 300, 500  # of 1,797 digits; the rest is the target test
VECTOR_TASKS = 60
Change = Callable[[Tensor, torch.Generator], Tensor]  # of grey images [n, 1, 16, 16] with values in [0, 1]


@dataclass(frozen=True)
class BlindTask:
    """A task of the blind test, and what is trained on it."""

    name: str
    kind: Kind
    load: Callable[[Path], Task] = field(repr=False)
    half: Half = "tune"
    identical: bool = False  # whether source and target are drawn from the same distribution

    @property
    def recipes(self) -> list[Recipe]:
        """The adapted recipes; each is compared with its `source_only()`."""
        if self.kind == "photos":
            return [load_recipe(name) for name in ("photos_dann", "photos_mani", "photos")]
        recipes = [_short("dann", self.kind, reversal="ramp"), _short("information_maximisation", self.kind)]
        if self.kind == "images":
            recipes.append(_short("mutual_align", self.kind))
        if generator("blind", "heavy", self.name).initial_seed() % 3 == 0:  # a bad recipe on every third task
            recipes.append(_short("dann", self.kind, "heavy", weight=20.0))
        return recipes

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of each recipe; images and photos have one, to save time."""
        return (0, 1) if self.kind == "vectors" else (0,)


def _short(method: str, kind: Kind, name: str = "", **options: Any) -> Recipe:
    """A recipe of 100 steps in four epochs."""
    images = kind == "images"
    optim = {"lr": 3e-3, "schedule": "one_cycle" if images else "constant"}
    stage = {"method": method, "epochs": 4, "epoch_steps": 25, "batch_size": 32, "optim": optim, "options": options}
    data = {"name": name or method, "precision": "float32", "stages": [stage]}
    return parse_recipe(data | {"backbone": "two_block_cnn" if images else "mlp"}, "the blind test")


# Images ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """A task on the digits: how its target, and perhaps its source, differs from them."""

    target: Change = lambda images, rng: images
    both: Change = lambda images, rng: images
    kept: Callable[[Tensor], Tensor] | None = None  # the share of each target class that is kept, by label
    only: tuple[int, ...] = tuple(range(CLASSES))  # classes of the task
    unknown: tuple[int, ...] = ()  # classes that the source lacks
    renamed: dict[int, int] = field(default_factory=dict)  # source classes with a wrong name
    wrong_labels: float = 0.0  # share of source labels that are random
    target_images: int | None = None  # for training and test together
    identical: bool = False  # whether source and target are drawn from the same distribution


def load_digits_task(name: str, change: Digits, data: Path) -> Task:
    """Make a task; source and target have different digits."""
    images, labels = _digits()
    rng = generator("blind", name)
    order = torch.randperm(len(labels), generator=rng)
    order = order[torch.isin(labels[order], torch.tensor(change.only))]
    share = len(order) / len(labels)
    sizes = [round(share * size) for size in (SOURCE_TRAIN, SOURCE_TEST, TARGET_TRAIN)]
    parts = list(order.split([*sizes, len(order) - sum(sizes)]))
    for at in (2, 3):
        if change.kept is not None:
            rows = torch.rand(len(parts[at]), generator=rng) < change.kept(labels[parts[at]])
            parts[at] = parts[at][rows]
        if change.target_images is not None:
            parts[at] = parts[at][: change.target_images // 2]
    for at in (0, 1):
        parts[at] = parts[at][~torch.isin(labels[parts[at]], torch.tensor(change.unknown))]
    new = torch.tensor([change.renamed.get(label, label) for label in range(CLASSES)])
    names = {label: number for number, label in enumerate(change.only)}
    number = torch.tensor([names.get(label, 0) for label in range(CLASSES)])
    pixels, answers = [], []
    for at, rows in enumerate(parts):
        changed = change.both(images[rows], rng)
        changed = change.target(changed, rng) if at >= 2 else changed
        answer = labels[rows] if at >= 2 else new[labels[rows]]
        if at < 2 and change.wrong_labels:
            wrong = torch.rand(len(rows), generator=rng) < change.wrong_labels
            drawn = torch.tensor(change.only)[torch.randint(len(change.only), (len(rows),), generator=rng)]
            answer = torch.where(wrong, drawn, answer)
        pixels.append(UnlabelledImages((changed.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous()))
        answers.append(number[answer])
    return Task(
        name,
        f"blind test, {name}",
        tuple(f"digit {label}" for label in change.only),
        LabelledImages(pixels[0], answers[0]),
        LabelledImages(pixels[1], answers[1]),
        TargetDataset(pixels[2], answers[2]),
        TargetDataset(pixels[3], answers[3]),
    )


@cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.tensor(bunch.images)[:, None].float() / 16
    return F.interpolate(small, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1), torch.tensor(bunch.target).long()


def warped(degrees: float = 0, scale: float = 1, x: float = 0, y: float = 0, shear: float = 0) -> Change:
    """Turn, scale, shear, and move by a share of the side."""

    def change(images: Tensor, rng: torch.Generator) -> Tensor:
        angle = math.radians(degrees)
        matrix = torch.tensor(
            [[math.cos(angle), shear - math.sin(angle), 2 * x], [math.sin(angle), math.cos(angle), 2 * y]]
        )
        matrix[:, :2] /= scale
        grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    return change


def noise(amount: float) -> Change:
    """Add Gaussian noise."""
    return lambda images, rng: images + amount * torch.randn(images.shape, generator=rng)


def salt(amount: float) -> Change:
    """Set a share of the pixels to black or white."""

    def change(images: Tensor, rng: torch.Generator) -> Tensor:
        hit, value = torch.rand(images.shape, generator=rng), torch.rand(images.shape, generator=rng)
        return torch.where(hit < amount, (value < 0.5).float(), images)

    return change


def texture(amount: float) -> Change:
    """Blend each image with a random smooth texture: |texture - image|, as in MNIST-M."""

    def change(images: Tensor, rng: torch.Generator) -> Tensor:
        coarse = torch.rand(len(images), 1, 5, 5, generator=rng)
        return (amount * F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1) - images).abs()

    return change


def covered(columns: int) -> Change:
    """Cover columns of pixels on the right."""

    def change(images: Tensor, rng: torch.Generator) -> Tensor:
        images = images.clone()
        images[..., SIDE - columns :] = 0
        return images

    return change


def blurred(size: int) -> Change:
    """Average over a square."""
    return lambda images, rng: F.avg_pool2d(images, size, stride=1, padding=size // 2)


def dilated(images: Tensor, rng: torch.Generator) -> Tensor:
    """Thicken the strokes."""
    return F.max_pool2d(images, 3, stride=1, padding=1)


def eroded(images: Tensor, rng: torch.Generator) -> Tensor:
    """Thin the strokes."""
    return -F.max_pool2d(-images, 2, stride=1, padding=1)[..., :SIDE, :SIDE]


def shuffled(images: Tensor, rng: torch.Generator) -> Tensor:
    """Permute the pixels, the same way in every image."""
    order = torch.randperm(SIDE * SIDE, generator=generator("blind", "pixels"))
    return images.flatten(2)[..., order].view_as(images)


def mixed(other: float) -> Change:
    """Add a share of another image of the set: a Bayes error."""
    return lambda images, rng: (1 - other) * images + other * images[torch.randperm(len(images), generator=rng)]


def half(change: Change) -> Change:
    """Change every second image."""

    def some(images: Tensor, rng: torch.Generator) -> Tensor:
        rows = torch.arange(len(images))[:, None, None, None] % 2 == 0
        return torch.where(rows, change(images, rng), images)

    return some


def kept(shares: dict[int, float], others: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Keep a share of each class."""
    table = torch.tensor([shares.get(label, others) for label in range(CLASSES)])
    return lambda labels: table[labels]


IMAGES: dict[str, Digits] = {
    "same": Digits(identical=True),
    "same-50": Digits(target_images=100, identical=True),
    "turned-15": Digits(warped(15)),
    "turned-30": Digits(warped(-30)),
    "turned-45": Digits(warped(45)),
    "turned-60": Digits(warped(60)),
    "turned-90": Digits(warped(90)),
    "turned-180": Digits(warped(180)),
    "turned-30-of-50": Digits(warped(30), target_images=100),
    "turned-half": Digits(half(warped(60))),
    "mirrored": Digits(lambda images, rng: images.flip(3)),
    "upside-down": Digits(lambda images, rng: images.flip(2)),
    "mirrored-half": Digits(half(lambda images, rng: images.flip(3))),
    "inverted": Digits(lambda images, rng: 1 - images),
    "noise-0.2": Digits(noise(0.2)),
    "noise-0.5": Digits(noise(0.5)),
    "salt-0.1": Digits(salt(0.1)),
    "salt-0.3": Digits(salt(0.3)),
    "blurred-3": Digits(blurred(3)),
    "blurred-7": Digits(blurred(7)),
    "texture-0.5": Digits(texture(0.5)),
    "texture-1": Digits(texture(1.0)),
    "thick": Digits(dilated),
    "thin": Digits(eroded),
    "moved-2": Digits(warped(x=2 / SIDE)),
    "moved-4": Digits(warped(x=4 / SIDE, y=-2 / SIDE)),
    "small": Digits(warped(scale=0.6)),
    "large": Digits(warped(scale=1.5)),
    "sheared": Digits(warped(shear=0.5)),
    "covered-4": Digits(covered(4)),
    "covered-8": Digits(covered(8)),
    "faint": Digits(lambda images, rng: 0.1 + 0.2 * images),
    "dark": Digits(lambda images, rng: images**4),
    "shuffled": Digits(shuffled),
    "rare-20": Digits(kept=kept({4: 1.0}, 0.05)),
    "rare-half": Digits(kept=kept(dict.fromkeys(range(5), 0.2))),
    "rare-turned": Digits(warped(30), kept=kept(dict.fromkeys(range(5, 10), 0.2))),
    "missing-1": Digits(kept=kept({3: 0.0})),
    "missing-5": Digits(warped(20), kept=kept(dict.fromkeys(range(0, 10, 2), 0.0))),
    "unknown-2": Digits(unknown=(2, 7)),
    "unknown-4": Digits(warped(15), unknown=(1, 4, 6, 9)),
    "renamed-2": Digits(renamed={7: 1, 8: 3}, identical=True),
    "renamed-1": Digits(warped(15), renamed={5: 2}),
    "swapped": Digits(renamed={3: 5, 5: 3}, identical=True),
    "wrong-labels-0.2": Digits(noise(0.1), wrong_labels=0.2),
    "wrong-labels-0.4": Digits(wrong_labels=0.4, identical=True),
    "two-classes": Digits(warped(40), only=(3, 8)),
    "three-classes": Digits(noise(0.3), only=(1, 4, 7)),
    "mixed-0.4": Digits(both=mixed(0.4), identical=True),
    "mixed-0.3-turned": Digits(warped(30), both=mixed(0.3)),
}


# Vectors --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vectors:
    """A random task of Gaussian classes."""

    classes: int
    width: int
    apart: float  # deviation of the centres of the classes
    sizes: tuple[int, int, int, int]  # source and target, training and test
    shift: str
    amount: float

    @classmethod
    def draw(cls, rng: torch.Generator) -> Vectors:
        """Draw the settings of a task."""

        def choose(*values: Any) -> Any:
            return values[int(torch.randint(len(values), (), generator=rng))]

        classes, width, apart = choose(2, 3, 5, 10, 20), choose(5, 10, 30), choose(1.0, 1.5, 2.5, 4.0)
        sizes = choose(300, 1000), 300, choose(100, 300, 1000), choose(100, 500)
        shift = choose("none", "mean", "turn", "scale", "classes", "noise", "prior", "unknown")
        return cls(classes, width, apart, sizes, shift, choose(0.3, 0.7, 1.5))


def load_vector_task(name: str, data: Path) -> Task:
    """Make a random task of Gaussian classes: number of classes, dimension, overlap, sizes and shift are drawn."""
    rng = generator("blind", name)
    drawn = Vectors.draw(rng)
    classes, width, apart, shift, amount = drawn.classes, drawn.width, drawn.apart, drawn.shift, drawn.amount
    centres = apart * torch.randn(classes, width, generator=rng)
    direction, moves = torch.randn(width, generator=rng), torch.randn(classes, width, generator=rng)
    turn = torch.linalg.qr(torch.eye(width) + 0.5 * amount * torch.randn(width, width, generator=rng))[0]
    turn = turn * torch.sign(torch.diagonal(turn))  # near the identity for a small amount
    prior = torch.rand(classes, generator=rng) ** (3 * amount) if shift == "prior" else torch.ones(classes)
    parts: list[UnlabelledImages] = []
    answers: list[Tensor] = []
    for at, size in enumerate(drawn.sizes):
        is_target = at >= 2
        weights = prior if is_target else torch.ones(classes)
        if shift == "unknown" and not is_target and classes > 2:
            weights = torch.ones(classes)
            weights[-max(1, classes // 5) :] = 0
        labels = torch.multinomial(weights, size, replacement=True, generator=rng)
        labels[:classes] = torch.where(weights[torch.arange(classes)] > 0, torch.arange(classes), 0)[:size]
        values = torch.randn(size, width, generator=rng)
        where = centres
        if is_target and shift == "classes":
            where = centres + amount * moves
        values = values + where[labels]
        if is_target:
            if shift == "mean":
                values = values + 2 * amount * direction
            elif shift == "turn":
                values = values @ turn
            elif shift == "scale":
                values = values * (1 + amount)
            elif shift == "noise":
                values = values + amount * torch.randn(values.shape, generator=rng)
        parts.append(UnlabelledImages(values[:, None, None, :].contiguous()))
        answers.append(labels)
    return Task(
        name,
        f"blind test, {name}: {drawn}",
        tuple(f"class {label}" for label in range(classes)),
        LabelledImages(parts[0], answers[0]),
        LabelledImages(parts[1], answers[1]),
        TargetDataset(parts[2], answers[2]),
        TargetDataset(parts[3], answers[3]),
    )


# All ------------------------------------------------------------------------------------------------------------------


def load_photos(name: str, data: Path) -> Task:
    """Load features of a pair of Office-31."""
    return load_task(name, data, load_recipe("photos"))


def blind_tasks() -> list[BlindTask]:
    """Return all tasks; half of each kind is for tuning."""
    tasks = [
        BlindTask(name, "images", partial(load_digits_task, name, change), identical=change.identical)
        for name, change in IMAGES.items()
    ]
    pairs = [f"office31:{source}-{target}" for source, target in permutations(("amazon", "webcam", "dslr"), 2)]
    tasks += [BlindTask(name, "photos", partial(load_photos, name)) for name in pairs]
    names = [f"vectors-{number}" for number in range(VECTOR_TASKS)]
    tasks += [
        BlindTask(
            name,
            "vectors",
            partial(load_vector_task, name),
            identical=Vectors.draw(generator("blind", name)).shift == "none",
        )
        for name in names
    ]
    found = []
    for kind in dict.fromkeys(task.kind for task in tasks):
        own = [task for task in tasks if task.kind == kind]
        order = torch.randperm(len(own), generator=generator("blind", "halves", kind)).tolist()
        halves: dict[int, Half] = {at: "tune" if place < len(own) // 2 else "blind" for place, at in enumerate(order)}
        found += [replace(task, half=halves[at]) for at, task in enumerate(own)]
    return found
