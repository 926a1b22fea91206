"""ONNX: a graph for onnxruntime and other runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from mutualign.errors import MutualignError
from mutualign.export.formats.base import Format, OpenedFile, read_class_names, register_format
from mutualign.nn.exporters import has_onnx, quiet_exporters

if TYPE_CHECKING:
    from mutualign.export.network import ExportedNetwork


@register_format("onnx")
class Onnx(Format):
    """A graph for onnxruntime and other runtimes; needs the extra `export`."""

    suffix = ".onnx"
    usage = """\
import json, onnxruntime
model = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
(probabilities,) = model.run(None, {{"pixels": pixels}})
names = json.loads(model.get_modelmeta().custom_metadata_map["class_names"])"""

    def encode(self, network: ExportedNetwork, metadata: Mapping[str, str]) -> bytes:
        import torch

        if not has_onnx():
            raise MutualignError(
                "the format onnx needs onnx, onnxscript and onnxruntime\n  hint:    pip install 'mutualign[export]'"
            )
        with quiet_exporters():
            program = torch.onnx.export(
                network,
                (network.example,),
                input_names=["pixels"],
                output_names=["probabilities"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
        assert program is not None  # noqa: S101
        model = program.model_proto
        graph = model.graph
        # The exporter records the source line of each node, with paths of this machine.
        for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
        model.producer_name, model.producer_version = "mutualign", version("mutualign")
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        return bytes(model.SerializeToString())

    def decode(self, content: bytes) -> OpenedFile:
        import onnxruntime
        import torch

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        return OpenedFile(
            lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]),
            read_class_names(metadata),
        )
