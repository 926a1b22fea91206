"""Everything that a run folder holds except times, to compare two runs."""

from __future__ import annotations

from typing import Any

from mutualign.io.tensors import digest
from mutualign.io.typed import to_plain
from mutualign.runs.folder import RunFolder


def contents(run: RunFolder) -> dict[str, Any]:
    """Return the tensors of each file as a hash, the plain data in its header, the metrics and the result."""
    files = sorted(path.stem for path in run.path.glob("checkpoints/*.safetensors"))
    loaded = {name: run.checkpoints.load(name) for name in files}
    result = {key: value for key, value in to_plain(run.result() or {}).items() if key not in TIMES}
    result["stages"] = [_timeless(stage) for stage in result.get("stages", [])]
    return {
        "tensors": {name: digest(tensors) for name, (tensors, _) in loaded.items()},
        "infos": {name: _timeless(info) for name, (_, info) in loaded.items()},
        "records": [_timeless(to_plain(record)) for record in run.metrics()],
        "result": result,
    }


TIMES = ("created", "command", "hardware")


def _timeless(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "train_seconds": 0}
