"""What every benchmark writes: its rows as JSON, with the command, commit and hardware that they come from."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mutualign.io.atomic import write_atomically
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import describe_hardware, versions


def origin() -> dict[str, str]:
    """Command, commit and hardware of this process. To be called first: by the end, the checkout may have moved on."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": versions()["commit"],
        "hardware": describe_hardware(make_fabric("auto")),
    }


def write(path: Path, origin: Mapping[str, str], rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Write a results file; `more` goes between the origin and the rows."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**origin, "created": created, **more, "rows": rows}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
