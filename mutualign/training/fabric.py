"""What the project uses of Lightning Fabric, and a faster import of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any


@contextmanager
def _version_only(package: str) -> Iterator[None]:
    """Let `import package` give a module with nothing but its version, if it is installed and not imported yet."""
    try:
        module = ModuleType(package)
        module.__version__ = metadata.version(package)  # type: ignore[attr-defined]
    except metadata.PackageNotFoundError:
        yield
        return
    imported = sys.modules.setdefault(package, module)
    try:
        yield
    finally:
        if imported is module:
            del sys.modules[package]


# Fabric imports torchmetrics, where it is installed, to compare its version: over a second of the start of a command.
with _version_only("torchmetrics"):
    from lightning_fabric import Fabric as LightningFabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # or it logs the precision of every run and prediction

__all__ = [
    "ClusterEnvironment",
    "DDPStrategy",
    "Fabric",
    "LightningEnvironment",
    "MisconfigurationException",
    "SLURMEnvironment",
    "TorchElasticEnvironment",
]


class Fabric(LightningFabric):
    """Fabric without callbacks of other packages: it would look for them among all that are installed, every time."""

    @staticmethod
    def _configure_callbacks(callbacks: Any) -> list[Any]:
        return []
