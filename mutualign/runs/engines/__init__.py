"""Engines: where work is done; one file per engine, on this machine or on a cluster that exists already."""

from importlib import import_module
from pkgutil import iter_modules

from mutualign.runs.engines.base import ENGINES, Engine, open_engine, register_engine

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["ENGINES", "Engine", "open_engine", "register_engine"]
