"""Export formats. One file each; importing this package registers all of them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mutualign.export.formats.base import FORMATS, Format, OpenedFile, formats_help, register_format

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["FORMATS", "Format", "OpenedFile", "formats_help", "register_format"]
