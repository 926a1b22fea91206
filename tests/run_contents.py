"""All that a run folder holds but times, to compare two runs with."""

from __future__ import annotations

from typing import Any

from mutualign.io.tensors import digest
from mutualign.runs.folder import RunFolder


def contents(run: RunFolder) -> dict[str, Any]:
    """Tensors as hashes, and what a checkpoint says of itself, by file; the records; the result."""
    files = sorted(path.stem for path in run.path.glob("checkpoints/*.safetensors"))
    loaded = {name: run.load_tensors(name) for name in files}
    result = run.result() or {}
    timeless = {key: value for key, value in result.items() if key not in ("created", "command", "hardware")}
    return {
        "tensors": {name: digest(tensors) for name, (tensors, _) in loaded.items()},
        "infos": {name: {**info, "train_seconds": 0} for name, (_, info) in loaded.items()},
        "records": [{**record, "train_seconds": 0} for record in run.metrics()],
        "result": timeless | {"stages": [{**stage, "train_seconds": 0} for stage in result.get("stages", [])]},
    }
