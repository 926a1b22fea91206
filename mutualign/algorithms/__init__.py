"""Methods of adaptation, by name. A new one: a file here, a line in `ALGORITHMS`, a recipe, a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mutualign.algorithms.base import Algorithm, Losses, Metrics
from mutualign.algorithms.dann import DANN, DANNConfig
from mutualign.algorithms.mani import MaNi, MaNiConfig
from mutualign.algorithms.mutual_align import MutualAlign, MutualAlignConfig
from mutualign.algorithms.source_only import SourceOnly, SourceOnlyConfig
from mutualign.nn.backbones import Classifier

# Each name, its settings, and its class.
ALGORITHMS: dict[str, tuple[type[Any], Callable[[Classifier, Any], Algorithm]]] = {
    "source_only": (SourceOnlyConfig, SourceOnly),
    "dann": (DANNConfig, DANN),
    "mani": (MaNiConfig, MaNi),
    "mutual_align": (MutualAlignConfig, MutualAlign),
}

__all__ = [
    "ALGORITHMS",
    "DANN",
    "Algorithm",
    "DANNConfig",
    "Losses",
    "MaNi",
    "MaNiConfig",
    "Metrics",
    "MutualAlign",
    "MutualAlignConfig",
    "SourceOnly",
    "SourceOnlyConfig",
]
