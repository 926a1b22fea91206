"""The model card: what a file with a trained classifier is, made for, and worth; as Markdown and as plain data."""

from __future__ import annotations

from typing import Any, Literal

from mutualign.errors import MutualignError
from mutualign.runs.predictor import Predictor

Epoch = Literal["selected", "last"]
LIMITS = (
    "It answers every image with one of its classes, also an image of something else.",
    "It was made for images like those of its source and of its target; on others it is untested.",
    "Larger or smaller images must be brought to the height and width above as those of its training were.",
    "Its probabilities were not calibrated with target labels: they may be too sure.",
)
LICENCE = "none is stated for the weights; the terms of the images that it was trained on apply"


def facts(predictor: Predictor, epoch: Epoch, pixels: str) -> dict[str, Any]:
    """What the run folder tells of its classifier at an epoch, as plain data; `pixels` is the type of its input.

    Raises MutualignError if the run's metrics lack that epoch.
    """
    result, config = predictor.about, predictor.run.config()
    stage = len(result["stages"]) - 1
    selections = result["stages"][stage]["selections"]
    rule = next(name for name in selections if name.startswith("validator:"))
    chosen = selections["last" if epoch == "last" else rule]
    records = (record for record in predictor.run.metrics() if record["stage"] == stage)
    record = next((record for record in records if record["epoch"] == chosen["epoch"]), None)
    if record is None:
        raise MutualignError(f"{predictor.run.path}/metrics.jsonl: stage {stage + 1} lacks epoch {chosen['epoch']}")
    validator = rule.removeprefix("validator:")
    return {
        "task": result["task"],
        "data": result["data"],
        "class_names": list(predictor.class_names),
        "image_shape": predictor.shape._asdict(),
        "pixels": pixels,
        "recipe": result["recipe"],
        "methods": [part["method"] for part in result["stages"]],
        "backbone": config["recipe"]["backbone"],
        "seed": result["seed"],
        "epoch": {"number": chosen["epoch"], "of": result["stages"][stage]["epochs"], "rule": epoch},
        "label_free_score": {"name": validator, "value": record["scores"].get(validator)},
        "source_accuracy": chosen["source_accuracy"],
        "target_accuracy": chosen["target_accuracy"],  # None where there are no target labels
        "alarms": result["alarms"],
        "trained": result["created"],
        "command": result["command"],
        "hardware": result["hardware"],
        "versions": result["versions"],
    }


def model_card(told: dict[str, Any]) -> str:
    """The facts as a page of Markdown."""
    score, epoch, shape = told["label_free_score"], told["epoch"], told["image_shape"]
    size = f"[n, height {shape['height']}, width {shape['width']}, channels {shape['channels']}]"
    values = "0 to 255" if told["pixels"] == "uint8" else "as in its training, not scaled"
    alarms = [
        f"{alarm['name']} (stage {alarm['stage'] + 1}): {alarm['seen']}; {alarm['cause']}" for alarm in told["alarms"]
    ]
    sections = {
        "Purpose": [
            f"An image classifier of {len(told['class_names'])} classes for the target images of the task "
            f"{told['task']}, trained without their labels (unsupervised domain adaptation)",
            f"data: {told['data']}",
        ],
        "Input and output": [
            f"input: pixels, {told['pixels']} {size}, {values}; grey ones repeated to all channels",
            "output: probabilities, float32 [n, classes], in the order of the classes",
            f"classes: {', '.join(told['class_names'])}",
        ],
        "Training": [
            f"recipe: {told['recipe']} ({', then '.join(told['methods'])}), backbone {told['backbone']}",
            f"seed: {told['seed']}",
            f"epoch: {epoch['number']} of {epoch['of']} of the last stage, {_RULES[epoch['rule']]}",
            f"command: `{told['command']}`",
            f"date: {told['trained']}",
            f"hardware: {told['hardware']}",
            f"versions: {', '.join(f'{name} {version}' for name, version in told['versions'].items())}",
        ],
        "ValidatorInputs": [
            f"accuracy on source test images: {_percent(told['source_accuracy'])}",
            f"label-free score ({score['name']}, higher is better; no accuracy): {_number(score['value'])}",
            _target(told["target_accuracy"]),
        ],
        "Alarms": alarms or ["none"],
        "Limits": list(LIMITS),
        "Licence": [LICENCE],
    }
    parts = [f"# {told['recipe']} on {told['task']}, seed {told['seed']}"]
    for title, lines in sections.items():
        parts.append(f"## {title}\n\n" + "\n".join(f"- {' '.join(line.split())}" for line in lines))
    return "\n\n".join(parts) + "\n"


_RULES = {"selected": "chosen without target labels", "last": "the last one"}


def _target(accuracy: float | None) -> str:
    if accuracy is None:
        return "accuracy on target test images: unknown, as there are no target labels"
    return f"accuracy on target test images: {_percent(accuracy)} (needed labels; training and choice did not see them)"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
