"""The contract of export formats, over the registry: a file gives what the run gives, and says what it is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from mutualign.errors import MutualignError
from mutualign.export.exporter import check, export_run, real_images
from mutualign.export.formats import FORMATS, formats_help
from mutualign.export.formats.safetensors import load_exported
from mutualign.io.tensors import pack, unpack
from mutualign.runs.folder import RunFolder
from mutualign.runs.predictor import Predictor
from mutualign.training import setup


def pictures(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (n, 12, 12, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def load(run) -> Predictor:
    return Predictor.load(run, accelerator="cpu", precision="float32")


def use(done, pixels) -> dict:
    """Run the printed lines of Python."""
    found = {"pixels": pixels.numpy()}
    exec(done.usage, found)  # noqa: S102
    return found


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The finished run in each format."""
    out = tmp_path_factory.mktemp("exported")
    return {name: export_run(finished, name, out / f"model{form.suffix}") for name, form in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_the_printed_lines_use_the_file_for_any_number_of_images_and_give_what_the_run_gives(exported, finished, name):
    done = exported[name]
    assert done.size == done.path.stat().st_size
    for n in (1, 5, 130):
        found, expected = use(done, pictures(n)), load(finished).probabilities(pictures(n)).numpy()
        assert found["names"] == list(load(finished).class_names) or found["names"] == load(finished).class_names
        probabilities = np.asarray(found["probabilities"])
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=FORMATS[name].tolerance)


def metadata_of(name, path) -> dict[str, str]:
    """A file's metadata, read with its format's own library."""
    if name == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.get_modelmeta().custom_metadata_map
    if name == "torch-export":
        metadata = dict.fromkeys(("class_names", "image_shape", "backbone", "facts", "model_card"), "")
        torch.export.load(path, extra_files=metadata)
        return metadata
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("name", FORMATS)
def test_class_names_facts_and_model_card_are_in_the_file(exported, finished, name):
    metadata, result = metadata_of(name, exported[name].path), RunFolder.open(finished).require_result()
    assert json.loads(metadata["class_names"]) == ["left", "middle", "right"]
    assert json.loads(metadata["image_shape"]) == {"channels": 3, "height": 12, "width": 12}
    assert metadata["backbone"] == "two_block_cnn"
    facts, chosen = json.loads(metadata["facts"]), result.stages[0].selected
    assert [facts[key] for key in ("task", "recipe", "seed", "versions", "command")] == [
        result.task,
        result.recipe,
        0,
        result.versions,
        result.command,
    ]
    assert facts["epoch"] == {"number": chosen.epoch, "of": 2, "rule": "selected"}
    record = RunFolder.open(finished).metrics()[chosen.epoch - 1]
    validator = chosen.selection.validator
    assert facts["label_free_score"] == {"name": validator, "value": record.scores[validator]}
    for part in (
        "input: pixels, uint8 [n, height 12, width 12, channels 3], 0 to 255",
        "classes: left, middle, right",
        f"accuracy on source test images: {100 * chosen.source_accuracy:.1f} %",
        f"accuracy on target test images: {100 * chosen.target_accuracy:.1f} % (training and selection did not",
        f"({validator}, higher is better; not an accuracy): {record.scores[validator]:.4f}",
    ):
        assert part in metadata["model_card"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_short_is_refused(exported, finished, name):
    predictor, form = load(finished), FORMATS[name]
    images, _ = real_images(predictor)
    content = exported[name].path.read_bytes()
    assert check(content, form, predictor, images) == exported[name].difference <= 1e-5
    with pytest.raises(MutualignError, match="the exported file cannot be used: "):
        check(content[:-5000], form, predictor, images)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_change_on_their_way_into_the_file_are_found_and_nothing_is_written(run, monkeypatch, name):
    encode = type(FORMATS[name]).encode

    def swapped(self, network, metadata):
        weights = network.classifier.state_dict()
        heads = {key: weight[[1, 0, 2]] for key, weight in weights.items() if key.startswith("head")}
        network.classifier.load_state_dict(weights | heads)
        return encode(self, network, metadata)

    monkeypatch.setattr(type(FORMATS[name]), "encode", swapped)
    with pytest.raises(MutualignError, match=r"does not agree with the run: .* images differ"):
        export_run(run, name)
    assert not list(run.glob("model*"))


@pytest.fixture(scope="module")
def grey(train_tiny):
    """A finished run on grey images in bf16. Read only."""
    return train_tiny("precision=bf16", grey=True)


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_on_floats_takes_floats_and_one_on_grey_images_takes_one_channel(grey, tmp_path, name):
    run = shutil.copytree(grey, tmp_path / "run")
    checkpoints = RunFolder.open(run).checkpoints
    review, info = checkpoints.load("review")
    floats = {key: review[key].float() / 255 - 0.5 for key in ("source_samples", "target_samples")}
    checkpoints.save("review", review | floats, info)
    done = export_run(run, name, tmp_path / f"model{FORMATS[name].suffix}")
    assert done.pixels == ("float32", 12, 12, 1)
    found, expected = use(done, floats["target_samples"]), load(run).probabilities(floats["target_samples"])
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-5)


def test_another_backbone_for_small_images_is_exported_to_onnx(train_tiny):
    assert export_run(train_tiny("backbone=small_resnet")).difference <= 1e-5


def test_the_onnx_graph_has_no_training_node_no_path_of_this_machine_and_no_weight_outside_the_file(exported):
    content = exported["onnx"].path.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    (pixels,) = model.graph.input
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    first, *others = pixels.type.tensor_type.shape.dim
    assert first.dim_param
    assert [dim.dim_value for dim in others] == [12, 12, 3]
    assert all(node.domain == "" and len(node.metadata_props) == 0 for node in model.graph.node)
    assert not {"Dropout", "RandomUniform", "RandomUniformLike"} & {node.op_type for node in model.graph.node}
    assert b"mutualign/nn" not in content
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in model.graph.initializer)


def test_an_onnx_file_for_a_fixed_number_of_images_is_refused(exported, finished):
    model = onnx.load_from_string(exported["onnx"].path.read_bytes())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    predictor = load(finished)
    with pytest.raises(MutualignError, match="cannot be used: InvalidArgument"):
        check(model.SerializeToString(), FORMATS["onnx"], predictor, real_images(predictor)[0])


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def run_of_timm(request, timm, train_tiny):
    """A finished run with a network of timm. Read only."""
    return train_tiny(f"backbone=timm:{request.param}", "stages.0.epochs=1", scale=4)


@pytest.mark.parametrize("name", ["safetensors", "onnx"])
def test_a_run_with_a_network_of_timm_is_exported_and_answers_as_the_run_does(run_of_timm, tmp_path, name):
    done = export_run(run_of_timm, name, tmp_path / f"model{FORMATS[name].suffix}")
    opened = load_exported(done.path) if name == "safetensors" else FORMATS[name].decode(done.path.read_bytes())
    images = pictures(9).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert opened.class_names == ("left", "middle", "right")
    expected = load(run_of_timm).probabilities(images)
    torch.testing.assert_close(opened.probabilities(images), expected, atol=FORMATS[name].tolerance, rtol=0)


def test_a_damaged_or_foreign_safetensors_file_is_refused_with_its_name(exported, tmp_path):
    content = exported["safetensors"].path.read_bytes()
    other = tmp_path / "other.safetensors"
    for damaged in (
        content[:-1] + bytes([content[-1] ^ 1]),
        content[:100],
        content.replace(b"image_shape", b"image_shapf"),
    ):
        other.write_bytes(damaged)
        with pytest.raises(MutualignError, match=f"{other}: not a readable exported classifier"):
            load_exported(other)


def test_a_safetensors_file_is_compared_with_the_network_that_it_describes_before_that_is_built(
    exported, tmp_path, monkeypatch
):
    weights, metadata = unpack(exported["safetensors"].path)
    build, other = setup.build_backbone, tmp_path / "other.safetensors"

    def on_no_device(*arguments):
        assert torch.empty(0).is_meta
        return build(*arguments)

    monkeypatch.setattr(setup, "build_backbone", on_no_device)
    wide = metadata | {"image_shape": '{"channels": 4, "height": 12, "width": 12}'}
    broken = weights | {"head.bias": torch.tensor([0.0, torch.nan, 0.0])}
    for tensors, described, fault in (
        (weights, wide, "the weights do not belong to the network that is described"),
        (broken, metadata, r"the weight head\.bias is not finite"),
    ):
        other.write_bytes(pack(tensors, described))
        with pytest.raises(MutualignError, match=f"{other}: not a readable exported classifier: {fault}"):
            load_exported(other)


def test_the_help_of_format_names_every_registered_format():
    assert all(name in formats_help() for name in FORMATS)
