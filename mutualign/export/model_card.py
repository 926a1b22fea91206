"""The model card: what an exported classifier is, what it is for, and how good it is; as Markdown and as data."""

from __future__ import annotations

from dataclasses import dataclass

from mutualign.errors import MutualignError
from mutualign.io.numbers import percent
from mutualign.nn.weights import PRETRAINED
from mutualign.recipes import Recipe
from mutualign.runs.checkpoints import Which
from mutualign.runs.history import StageAlarm
from mutualign.runs.predictor import Predictor
from mutualign.runs.spec import RunConfig

LIMITS = (
    "It answers every image with one of its classes, also an image of something else.",
    "It was trained for images like those of its source and of its target; on others it is untested.",
    "Larger or smaller images must be brought to the height and width above in the way its training images were.",
    "Its probabilities were not calibrated with target labels: they may be too high.",
)
PHOTOS = (
    "photos are turned upright, their transparent parts become white, and 16-bit values are divided by 257; they are "
    "scaled (bicubic) until they cover height x width, and cropped to the middle"
)
LICENCE = "none is stated for the weights; the terms of the images that it was trained on apply"
UNKNOWN_LICENCE = "the pretrained network's weights: the terms of those who published them apply"
PRETRAINED_LICENCE = "the pretrained network's weights, trained on ImageNet: Apache-2.0"


@dataclass(frozen=True)
class ChosenEpoch:
    """The epoch of the last stage whose weights are exported."""

    number: int  # from 1
    of: int
    rule: Which


@dataclass(frozen=True)
class Score:
    """A label-free score at the exported epoch; None if the run did not record it."""

    name: str
    value: float | None


@dataclass(frozen=True)
class FrozenNetwork:
    """The frozen network whose features a classifier takes."""

    network: str
    sha256: str  # of the file of its weights
    features: int
    weights: str = PRETRAINED  # or the path of the file where the run was trained

    @classmethod
    def of(cls, config: RunConfig) -> FrozenNetwork | None:
        """Describe the network whose features a run was trained on; None if it was trained on images."""
        pretrained = config.recipe.pretrained
        if pretrained is None:
            return None
        return cls(pretrained.network, pretrained.digest, config.images.channels, pretrained.weights)


def licences(recipe: Recipe) -> list[str]:
    """Say what is known of the licence of the weights, and of the pretrained ones that they need or started from."""
    used = recipe.pretrained or recipe.initial_weights
    return [LICENCE, *([PRETRAINED_LICENCE if used.is_published else UNKNOWN_LICENCE] if used else [])]


@dataclass(frozen=True)
class ModelFacts:
    """What a run folder records about its classifier at an epoch; exported files hold it as JSON."""

    task: str
    data: str
    class_names: tuple[str, ...]
    image_shape: dict[str, int]  # channels, height, width
    pixels: str  # type of the input: uint8 or float32
    recipe: str
    methods: list[str]  # one per stage
    backbone: str
    frozen: FrozenNetwork | None  # None if the backbone takes pixels
    of_files: bool  # whether it was trained on image files
    licences: list[str]
    seed: int
    epoch: ChosenEpoch
    label_free_score: Score
    source_accuracy: float
    target_accuracy: float | None  # None without target labels
    alarms: list[StageAlarm]
    trained: str
    command: str
    hardware: str
    versions: dict[str, str]

    @classmethod
    def of(cls, predictor: Predictor, which: Which, pixels: str) -> ModelFacts:
        """Collect the facts from a run. Raises MutualignError if its metrics lack the epoch."""
        result, folder = predictor.result, predictor.run
        index, stage = len(result.stages) - 1, result.stages[-1]
        chosen = stage.last if which == "last" else stage.selected
        record = next(
            (record for record in folder.metrics() if (record.stage, record.epoch) == (index, chosen.epoch)), None
        )
        if record is None:
            raise MutualignError(
                f"{folder.path}/metrics.jsonl: no record of epoch {chosen.epoch} of stage {index + 1}\n"
                "  hint:    restore the file from a copy, or train the run again in another folder"
            )
        validator, config = stage.selected.selection.validator or "", folder.config()
        return cls(
            task=result.task,
            data=result.data,
            class_names=predictor.class_names,
            image_shape=predictor.shape._asdict(),
            pixels=pixels,
            recipe=result.recipe,
            methods=[each.method for each in result.stages],
            backbone=config.recipe.backbone,
            frozen=FrozenNetwork.of(config),
            of_files=config.own_images is not None and not predictor.takes_vectors,
            licences=licences(config.recipe),
            seed=result.seed,
            epoch=ChosenEpoch(chosen.epoch, stage.epochs, which),
            label_free_score=Score(validator, record.scores.get(validator)),
            source_accuracy=chosen.source_accuracy,
            target_accuracy=chosen.target_accuracy,
            alarms=result.alarms,
            trained=result.created,
            command=result.command,
            hardware=result.hardware,
            versions=result.versions,
        )


def model_card(facts: ModelFacts) -> str:
    """Write the facts as a page of Markdown."""
    shape, score, epoch = facts.image_shape, facts.label_free_score, facts.epoch
    size = f"[n, height {shape['height']}, width {shape['width']}, channels {shape['channels']}]"
    vectors = (shape["height"], shape["width"]) == (1, 1)
    values = "0 to 255" if facts.pixels == "uint8" else "as in training, not scaled"
    frozen = facts.frozen
    backbone = facts.backbone
    if frozen:
        backbone += f" on {frozen.features} features of {frozen.network} (frozen; weights with SHA-256 {frozen.sha256})"
    rule = "the last one" if epoch.rule == "last" else "chosen without target labels"
    sections = {
        "Purpose": [
            f"An image classifier of {len(facts.class_names)} classes for the target images of the task {facts.task}, "
            "trained without their labels (unsupervised domain adaptation)",
            f"data: {facts.data}",
        ],
        "Input and output": [
            f"input: pixels, {facts.pixels} {size}, {values}; "
            + ("one feature vector per row" if vectors else "grey images repeated to all channels"),
            *([PHOTOS] if facts.of_files else []),
            "output: probabilities, float32 [n, classes], in the order of the classes",
            f"classes: {', '.join(facts.class_names)}",
        ],
        "Training": [
            f"recipe: {facts.recipe} ({', then '.join(facts.methods)}), backbone {backbone}",
            f"seed: {facts.seed}",
            f"epoch: {epoch.number} of {epoch.of} of the last stage, {rule}",
            f"command: `{facts.command}`",
            f"date: {facts.trained}",
            f"hardware: {facts.hardware}",
            f"versions: {', '.join(f'{name} {version}' for name, version in facts.versions.items())}",
        ],
        "Evaluation": [
            f"accuracy on source test images: {percent(facts.source_accuracy)}",
            f"label-free score ({score.name}, higher is better; not an accuracy): "
            f"{'unknown' if score.value is None else f'{score.value:.4f}'}",
            f"accuracy on target test images: {percent(facts.target_accuracy)} "
            + (
                "(no target labels)"
                if facts.target_accuracy is None
                else "(training and selection did not see these labels)"
            ),
        ],
        "Alarms": [f"{alarm.name} (stage {alarm.stage + 1}): {alarm.seen}; {alarm.cause}" for alarm in facts.alarms]
        or ["none"],
        "Limits": list(LIMITS),
        "Licence": facts.licences,
    }
    parts = [f"# {facts.recipe} on {facts.task}, seed {facts.seed}"]
    for title, lines in sections.items():
        parts.append(f"## {title}\n\n" + "\n".join(f"- {' '.join(line.split())}" for line in lines))
    return "\n\n".join(parts) + "\n"
