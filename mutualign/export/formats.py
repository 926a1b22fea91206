"""The formats of an exported classifier: how each is made from a run's, and how a file of it is used again."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from safetensors.torch import load, save
from torch import Tensor, nn

from mutualign.data.types import ImageShape, Pixels, to_floats
from mutualign.errors import MutualignError
from mutualign.nn.backbones import BACKBONES
from mutualign.nn.classifier import Classifier

Answer = Callable[[Pixels], Float[Tensor, "n classes"]]
Notes = dict[str, str]  # what a file says of itself; `class_names` and `image_shape` are JSON


class Deployed(nn.Module):
    """From pixels as they are stored to class probabilities: what a file holds."""

    def __init__(self, classifier: Classifier, shape: ImageShape, pixels: torch.dtype) -> None:
        super().__init__()
        self.classifier = deepcopy(classifier).requires_grad_(False)
        self.classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # else saving warns
        self.shape = shape
        self.example = torch.zeros(2, shape.height, shape.width, shape.channels, dtype=pixels)  # one would stay one
        self.eval()

    def forward(self, pixels: Pixels) -> Float32[Tensor, "n classes"]:
        return self.classifier(to_floats(pixels, self.shape.channels)).softmax(1)  # type: ignore[no-any-return]


class Opened(NamedTuple):
    """An exported file, read back as its user would."""

    answer: Answer
    class_names: tuple[str, ...]


class Format(NamedTuple):
    """A kind of file."""

    suffix: str
    encode: Callable[[Deployed, Notes], bytes]
    decode: Callable[[bytes], Opened]
    tolerance: float  # the largest difference of a probability that is let pass
    usage: str  # Python that makes `probabilities` from `pixels` and a `{path}`, and `names`


# ONNX -----------------------------------------------------------------------------------------------------------------


def encode_onnx(network: Deployed, notes: Notes) -> bytes:
    """The graph with its weights, of any number of images, and the notes as its metadata."""
    _require_onnx()
    with _quiet():
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
    # Each node tells the source lines, with paths of this machine, that it came from.
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.producer_name, model.producer_version = "mutualign", version("mutualign")
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


def decode_onnx(content: bytes) -> Opened:
    """The file in onnxruntime, on the CPU."""
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    return Opened(lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]), _names(notes))


def _require_onnx() -> None:
    if any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
        raise MutualignError(
            "the export needs onnx, onnxscript and onnxruntime\n  do       pip install 'mutualign[export]'"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without two remarks of torch's exporter about itself."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    log.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        log.removeFilter(wanted)


# torch.export ---------------------------------------------------------------------------------------------------------


def encode_program(network: Deployed, notes: Notes) -> bytes:
    """The traced program with its weights, of any number of images, and the notes as extra files."""
    with _quiet():
        program = torch.export.export(network, (network.example,), dynamic_shapes=({0: torch.export.Dim("n")},))
        buffer = BytesIO()
        torch.export.save(program, buffer, extra_files=dict(notes))
    return buffer.getvalue()


def decode_program(content: bytes) -> Opened:
    """The program, loaded back."""
    notes = {"class_names": ""}
    with _quiet():
        program = torch.export.load(BytesIO(content), extra_files=notes).module()
    return Opened(program, _names(notes))


# safetensors ----------------------------------------------------------------------------------------------------------


def encode_weights(network: Deployed, notes: Notes) -> bytes:
    """The classifier's weights, and the notes in the header."""
    return save(network.classifier.state_dict(), metadata={"format": "pt", **notes})


def decode_weights(content: bytes) -> Opened:
    """The classifier, built anew from what the header says."""
    length = int.from_bytes(content[:8], "little")
    notes = json.loads(content[8 : 8 + length])["__metadata__"]
    shape, names = ImageShape(**json.loads(notes["image_shape"])), _names(notes)
    with torch.random.fork_rng():
        classifier = Classifier(BACKBONES[notes["backbone"]](*shape), len(names))
    classifier.load_state_dict(load(content))
    classifier.eval()
    return Opened(lambda pixels: classifier(to_floats(pixels, shape.channels)).softmax(1), names)


def _names(notes: Notes) -> tuple[str, ...]:
    return tuple(json.loads(notes["class_names"]))


FORMATS = {
    "onnx": Format(
        ".onnx",
        encode_onnx,
        decode_onnx,
        1e-4,
        """\
import json, onnxruntime
model = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
(probabilities,) = model.run(None, {{"pixels": pixels}})
names = json.loads(model.get_modelmeta().custom_metadata_map["class_names"])""",
    ),
    "torch-export": Format(
        ".pt2",
        encode_program,
        decode_program,
        1e-4,
        """\
import json, torch
notes = {{"class_names": "", "model_card": ""}}
probabilities = torch.export.load({path!r}, extra_files=notes).module()(torch.as_tensor(pixels))
names = json.loads(notes["class_names"])""",
    ),
    "safetensors": Format(
        ".safetensors",
        encode_weights,
        decode_weights,
        0.0,
        """\
import json, safetensors, torch
from mutualign.data.images import to_floats
from mutualign.nn.backbones import BACKBONES, Classifier
with safetensors.safe_open({path!r}, "pt") as file:
    notes, weights = file.metadata(), {{key: file.get_tensor(key) for key in file.keys()}}
shape, names = json.loads(notes["image_shape"]), json.loads(notes["class_names"])
classifier = Classifier(BACKBONES[notes["backbone"]](**shape), len(names)).eval()
classifier.load_state_dict(weights)
with torch.inference_mode():
    probabilities = classifier(to_floats(torch.as_tensor(pixels), shape["channels"])).softmax(1)""",
    ),
}
