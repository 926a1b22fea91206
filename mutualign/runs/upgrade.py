"""Reading run folders of format 1: old names become the present ones. Applying a function twice changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def upgrade_record(data: dict[str, Any]) -> dict[str, Any]:
    """Rename the keys of an epoch's record."""
    return _rename(data, algorithm="method")


def upgrade_result(data: dict[str, Any]) -> dict[str, Any]:
    """Rename the keys of a result, and turn its table of selections into a list."""
    result = _rename(data, domains_told_apart="domain_accuracy")
    result["stages"] = [_upgrade_stage_result(stage) for stage in result.get("stages", ())]
    return result


def _upgrade_stage_result(data: dict[str, Any]) -> dict[str, Any]:
    stage = _rename(data, algorithm="method")
    if isinstance(selections := stage.get("selections"), Mapping):
        stage["selections"] = [{"selection": _selection(name), **chosen} for name, chosen in selections.items()]
    return stage


def _selection(name: str) -> dict[str, str]:
    kind, colon, validator = name.partition(":")
    return {"kind": kind, "validator": validator} if colon else {"kind": kind}


def upgrade_checkpoint(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint for resuming."""
    prefixes = {"algorithm.": "method.", "optimizer.": "optimiser.all."}
    renamed = {}
    for name, tensor in tensors.items():
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        renamed[prefixes.get(old, "") + name.removeprefix(old)] = tensor
    return renamed


def _rename(data: Mapping[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in data.items()}
