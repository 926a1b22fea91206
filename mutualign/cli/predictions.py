"""Files of predictions: CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutualign.errors import MutualignError
from mutualign.io.output import check_output, write_output
from mutualign.runs.predictor import Prediction

FORMATS = (".csv", ".json", ".parquet")


def check_predictions(out: Path, inputs: Sequence[Path], force: bool) -> None:
    """Raise MutualignError now, not after the last image, if the predictions cannot be written."""
    if out.suffix.lower() not in FORMATS:
        raise MutualignError(f"--out {out}: its name must end in one of {', '.join(FORMATS)}")
    check_output(out, inputs=inputs, force=force)
    if out.suffix.lower() == ".parquet":
        _pyarrow()


def write_predictions(out: Path, found: Sequence[Prediction], inputs: Sequence[Path], force: bool) -> None:
    """Write the predictions, completely or not at all."""
    found = [one._replace(path=_as_text(one.path)) for one in found]
    if out.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Prediction._fields)
        writer.writerows((path, label, f"{p:.6f}", f"{entropy:.6f}") for path, label, p, entropy in found)
        content = text.getvalue().encode()
    elif out.suffix.lower() == ".json":
        content = (json.dumps([one._asdict() for one in found], indent=1) + "\n").encode()
    else:
        content = _parquet(found)
    write_output(out, content, inputs=inputs, force=force)


def _as_text(path: str) -> str:
    """The path as UTF-8 text, also where the locale is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _parquet(found: Sequence[Prediction]) -> bytes:
    buffer = io.BytesIO()
    pyarrow = _pyarrow()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([one._asdict() for one in found]), buffer)
    return buffer.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MutualignError("Parquet needs pyarrow\n  hint:    pip install 'mutualign[parquet]'") from error
    return pyarrow
