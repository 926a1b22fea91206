"""The records of a run's epochs: what they come to, and as curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mutualign.evidence.selection import best_epoch
from mutualign.training.runs import Record


def summarise(records: list[Record], validator: str) -> list[dict[str, Any]]:
    """For each stage: the last epoch, the one that the validator chooses, and the best by target labels, if any."""
    stages = []
    for index in sorted({record["stage"] for record in records}):
        epochs = [record for record in records if record["stage"] == index]
        chosen = {
            "last": epochs[-1],
            f"validator:{validator}": best_epoch(epochs, validator),
        }
        if epochs[-1]["target_accuracy"] is not None:
            chosen["oracle"] = max(epochs, key=lambda record: float(record["target_accuracy"]))
        stages.append(
            {
                "algorithm": epochs[-1]["algorithm"],
                "epochs": len(epochs),
                "train_seconds": epochs[-1]["train_seconds"],
                "selections": {
                    name: {key: record[key] for key in ("epoch", "target_accuracy", "source_accuracy")}
                    for name, record in chosen.items()
                },
            }
        )
    return stages


def curves(epochs: Sequence[Record]) -> dict[str, list[float]]:
    """Every number that each of the epochs' records has, as a curve by name."""
    if not epochs:
        return {}
    flat = [_numbers(epoch) for epoch in epochs]
    return {name: [values[name] for values in flat] for name in flat[-1] if all(name in values for values in flat)}


def _numbers(epoch: Record) -> dict[str, float]:
    audited = epoch.get("audit", {})
    judged = {"target_accuracy": epoch["target_accuracy"], "source_accuracy": epoch["source_accuracy"]}
    judged |= {f"pseudo_label_{key}": value for key, value in epoch.get("pseudo_labels", {}).items()}
    numbers: dict[str, float] = (
        {name: value for name, value in judged.items() if value is not None}  # without target labels there are gaps
        | epoch["scores"]
        | epoch["means"]
        | {key: audited[key] for key in ("teacher_agreement", "drift") if key in audited}
        | {f"gradient_{key}": norm for key, norm in audited.get("gradients", {}).items()}
    )
    return numbers
