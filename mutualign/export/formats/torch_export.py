"""torch.export: a traced program that needs torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

from mutualign.export.formats.base import Format, OpenedFile, read_class_names, register_format
from mutualign.nn.exporters import quiet_exporters

if TYPE_CHECKING:
    from mutualign.export.network import ExportedNetwork


@register_format("torch-export")
class TorchExport(Format):
    """A program that needs torch alone."""

    suffix = ".pt2"
    usage = """\
import json, torch
metadata = {{"class_names": "", "model_card": ""}}
probabilities = torch.export.load({path!r}, extra_files=metadata).module()(torch.as_tensor(pixels))
names = json.loads(metadata["class_names"])"""

    def encode(self, network: ExportedNetwork, metadata: Mapping[str, str]) -> bytes:
        import torch

        buffer = BytesIO()
        with quiet_exporters():
            program = torch.export.export(network, (network.example,), dynamic_shapes=({0: torch.export.Dim("n")},))
            torch.export.save(program, buffer, extra_files=dict(metadata))
        return buffer.getvalue()

    def decode(self, content: bytes) -> OpenedFile:
        import torch

        metadata = {"class_names": ""}
        with quiet_exporters():
            # The content was written a moment ago by `encode`.
            program = torch.export.load(BytesIO(content), extra_files=metadata).module()  # noqa: TID251
        return OpenedFile(program, read_class_names(metadata))
