"""What torch's exporters need, and their silence. Imports no torch, so that `--help` is fast."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


def has_onnx() -> bool:
    """Whether the packages are installed that export to ONNX and run the graph."""
    return all(find_spec(package) for package in ("onnx", "onnxruntime", "onnxscript"))


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence two messages of torch's exporters that no user can act on."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    log.addFilter(is_wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        log.removeFilter(is_wanted)
