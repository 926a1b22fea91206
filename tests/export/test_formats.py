"""The formats of export: files that are used as they say, give what the run gives, and say what they are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from mutualign.export.exporter import export_run
from mutualign.nn.backbones import BACKBONES
from mutualign.runs.predictor import Predictor

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


@pytest.fixture
def run(small_runs, tmp_path):
    """A copy of a run, to write into or to change."""
    return shutil.copytree(small_runs / "two_block_cnn", tmp_path / "run")


def pictures(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (n, 12, 12, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def expected(run, pixels) -> torch.Tensor:
    return Predictor.load(run, accelerator="cpu", precision="float32").probabilities(pixels)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_the_printed_lines_use_the_file_and_give_what_the_run_gives(small_runs, tmp_path, backbone, kind):
    done = export_run(small_runs / backbone, kind, tmp_path / f"file{SUFFIXES[kind]}")
    assert done.size == done.path.stat().st_size
    assert done.difference <= 1e-5
    for n in (1, 5, 130):
        found = {"pixels": pictures(n).numpy()}
        exec(done.usage, found)  # noqa: S102
        assert found["names"] == ["left", "middle", "right"]
        probabilities = np.asarray(found["probabilities"])
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expected(small_runs / backbone, pictures(n)), rtol=0, atol=1e-4)
        if kind == "safetensors":
            assert np.array_equal(probabilities, expected(small_runs / backbone, pictures(n)))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_run_of_grey_images_only_takes_one_channel_and_its_bf16_stays_behind(small_runs, tmp_path, kind):
    done = export_run(small_runs / "grey", kind, tmp_path / f"file{SUFFIXES[kind]}")
    assert done.pixels == ("uint8", 12, 12, 1)
    found = {"pixels": pictures(9, 1).numpy()}
    exec(done.usage, found)  # noqa: S102
    np.testing.assert_allclose(found["probabilities"], expected(small_runs / "grey", pictures(9, 1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_onnx_graph_takes_bytes_in_any_number_and_has_neither_training_nor_paths_in_it(
    small_runs, tmp_path, backbone
):
    path = export_run(small_runs / backbone, "onnx", tmp_path / "model.onnx").path
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (pixels,), (probabilities,) = model.graph.input, model.graph.output
    assert (pixels.name, probabilities.name) == ("pixels", "probabilities")
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert probabilities.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    first, *others = pixels.type.tensor_type.shape.dim
    assert first.dim_param
    assert [dim.dim_value for dim in others] == [12, 12, 3]
    assert all(node.domain == "" for node in model.graph.node)
    assert not {"Dropout", "RandomUniform", "RandomUniformLike"} & {node.op_type for node in model.graph.node}
    for node in model.graph.node:
        assert not any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        assert len(node.metadata_props) == 0
    assert b"mutualign/nn" not in path.read_bytes()
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in model.graph.initializer)
    assert all(
        weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64) for weight in model.graph.initializer
    )


def notes_of(kind, path) -> dict[str, str]:
    """What a file says of itself, read with its format's own library."""
    if kind == "onnx":
        return (
            onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
        )
    if kind == "torch-export":
        notes = dict.fromkeys(("class_names", "image_shape", "backbone", "facts", "model_card"), "")
        torch.export.load(path, extra_files=notes)
        return notes
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("kind", SUFFIXES)
def test_class_names_facts_and_card_are_in_the_file(run, kind):
    notes = notes_of(kind, export_run(run, kind).path)
    assert json.loads(notes["class_names"]) == ["left", "middle", "right"]
    assert json.loads(notes["image_shape"]) == {"channels": 3, "height": 12, "width": 12}
    assert notes["backbone"] == "two_block_cnn"
    result = json.loads((run / "result.json").read_text())
    told = json.loads(notes["facts"])
    for key in ("task", "data", "recipe", "seed", "hardware", "versions", "alarms", "command"):
        assert told[key] == result[key]
    chosen = result["stages"][0]["selections"]["validator:combined"]
    assert told["source_accuracy"] == chosen["source_accuracy"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = next(record for record in records if record["epoch"] == chosen["epoch"])
    assert told["label_free_score"] == {"name": "combined", "value": record["scores"]["combined"]}
    card = notes["model_card"]
    assert card.startswith("# source_only on tiny, seed 0\n")
    for part in (
        "input: pixels, uint8 [n, height 12, width 12, channels 3], 0 to 255",
        "classes: left, middle, right",
        f"epoch: {chosen['epoch']} of 2 of the last stage, chosen without target labels",
        "data: made in a test",
        f"accuracy on source test images: {100 * chosen['source_accuracy']:.1f} %",
        f"accuracy on target test images: {100 * chosen['target_accuracy']:.1f} % (needed labels",
        f"(combined, higher is better; no accuracy): {record['scores']['combined']:.4f}",
        result["hardware"],
        f"torch {result['versions']['torch']}",
        *(alarm["seen"] for alarm in result["alarms"]),
    ):
        assert part in card
    if kind == "onnx":
        model = onnx.load(run / "model.onnx")
        assert (model.producer_name, model.producer_version) == ("mutualign", result["versions"]["mutualign"])


def test_the_card_says_so_where_the_target_accuracy_is_unknown_and_lists_alarms(run):
    result = json.loads((run / "result.json").read_text())
    for chosen in result["stages"][0]["selections"].values():
        chosen["target_accuracy"] = None
    result["alarms"] = [{"stage": 0, "name": "collapse", "seen": "one class\nfor all", "cause": "too fast"}]
    (run / "result.json").write_text(json.dumps(result))
    notes = notes_of("safetensors", export_run(run, "safetensors").path)
    assert "- accuracy on target test images: unknown, as there are no target labels\n" in notes["model_card"]
    assert "- collapse (stage 1): one class for all; too fast\n" in notes["model_card"]
    assert json.loads(notes["facts"])["target_accuracy"] is None


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_run_on_floats_takes_floats_as_they_are(run, kind):
    folder = Predictor.load(run).run
    review, info = folder.load_tensors("review")
    floats = {name: review[name].float() / 255 - 0.5 for name in ("source_samples", "target_samples")}
    folder.save_tensors("review", review | floats, info)
    done = export_run(run, kind)
    assert done.pixels == ("float32", 12, 12, 3)
    found = {"pixels": floats["target_samples"].numpy()}
    exec(done.usage, found)  # noqa: S102
    np.testing.assert_allclose(found["probabilities"], expected(run, floats["target_samples"]), rtol=0, atol=1e-5)
    assert (
        "pixels, float32 [n, height 12, width 12, channels 3], as in its training, not scaled"
        in (notes_of(kind, done.path)["model_card"])
    )
