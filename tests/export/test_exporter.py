"""Export: a file is not written where it does not answer as the run does; what is wrong is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from io import StringIO

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

from mutualign.cli.export import Export as ExportCommand
from mutualign.errors import MutualignError
from mutualign.export import formats
from mutualign.export.exporter import export_run, real_images
from mutualign.nn.backbones import BACKBONES
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.predictor import Predictor
from tests.conftest import make_tiny_task

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


@pytest.fixture
def run(small_runs, tmp_path):
    """A copy of a run, to write into or to change."""
    return shutil.copytree(small_runs / "two_block_cnn", tmp_path / "run")


def pictures(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (n, 12, 12, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def expected(run, pixels) -> torch.Tensor:
    return Predictor.load(run, accelerator="cpu", precision="float32").probabilities(pixels)


def session_of(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_last_epoch_is_exported_when_asked_for(run):
    """The last epoch's weights are changed here, the selected one's are not."""
    path = run / "checkpoints" / "stage-0-last.safetensors"
    folder = Predictor.load(run).run
    weights, info = folder.load_tensors("stage-0-last")
    weights["head.bias"] += torch.tensor([0.0, 1.0, 3.0])
    folder.save_tensors("stage-0-last", weights, info)
    assert path.is_file()
    done = export_run(run, "onnx", epoch="last")
    (found,) = session_of(done.path).run(None, {"pixels": pictures(4).numpy()})
    last = Predictor.load(run, "last", "cpu", "float32").probabilities(pictures(4))
    assert (last - expected(run, pictures(4))).abs().max() > 0.1
    np.testing.assert_allclose(found, last, rtol=0, atol=1e-5)
    card = session_of(done.path).get_modelmeta().custom_metadata_map["model_card"]
    assert "of the last stage, the last one" in card


def test_it_is_tried_on_images_of_both_domains_again_where_the_run_kept_few(small_runs):
    predictor = Predictor.load(small_runs / "two_block_cnn", accelerator="cpu")
    review, _ = predictor.run.load_tensors("review")
    images, different = real_images(predictor)
    n = len(review["source_samples"])
    assert n == len(review["target_samples"]) == 20
    assert (len(images), different) == (64, 40)
    assert torch.equal(images[:20], review["source_samples"].repeat(1, 1, 1, 3))
    assert torch.equal(images[20:40], review["target_samples"])
    assert torch.equal(images[40:], images[:24])


# Faults ---------------------------------------------------------------------------------------------------------------


def swap_rows(name, weight):
    """Two classes in each other's place."""
    return weight[[1, 0, 2]] if name.startswith("head") else weight


def nudge(name, weight):
    """Too little to change a class, and more than 1e-4 of a probability."""
    return weight + torch.tensor([2e-3, 0.0, 0.0]) if name == "head.bias" else weight


def unknown(name, weight):
    """Not a number."""
    return weight * torch.nan if name == "head.bias" else weight


def corrupted(kind, change):
    """The format, with weights that are changed on their way into the file."""
    form = formats.FORMATS[kind]

    def encode(network, notes):
        if kind != "onnx":
            state = network.classifier.state_dict()
            network.classifier.load_state_dict({name: change(name, weight) for name, weight in state.items()})
            return form.encode(network, notes)
        model = onnx.load_from_string(form.encode(network, notes))
        for weight in model.graph.initializer:
            changed = change(weight.name.removeprefix("classifier."), torch.tensor(onnx.numpy_helper.to_array(weight)))
            weight.CopyFrom(onnx.numpy_helper.from_array(changed.numpy(), weight.name))
        return model.SerializeToString()

    return form._replace(encode=encode)


@pytest.mark.parametrize("change", [swap_rows, nudge, unknown])
@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_that_answers_otherwise_is_not_written_and_what_differs_is_said(run, monkeypatch, kind, change):
    monkeypatch.setitem(formats.FORMATS, kind, corrupted(kind, change))
    before = files_of(run)
    with pytest.raises(MutualignError, match=r"does not answer as the run does: .* images differ") as raised:
        export_run(run, kind)
    assert "  file     " in str(raised.value)
    assert "  do       " in str(raised.value)
    assert files_of(run) == before


@pytest.mark.parametrize("kind", SUFFIXES)
def test_class_names_in_another_order_are_a_fault_too(run, monkeypatch, kind):
    form = formats.FORMATS[kind]

    def encode(network, notes):
        return form.encode(network, notes | {"class_names": json.dumps(["middle", "left", "right"])})

    monkeypatch.setitem(formats.FORMATS, kind, form._replace(encode=encode))
    with pytest.raises(MutualignError, match=r"its classes are \('middle', 'left', 'right'\)"):
        export_run(run, kind)
    assert not list(run.glob("model*"))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_that_is_cut_short_is_a_fault_and_the_old_one_stays(run, monkeypatch, kind):
    old = export_run(run, kind)
    before, form = files_of(run), formats.FORMATS[kind]
    cut = form._replace(encode=lambda network, notes: form.encode(network, notes)[:-5000])
    monkeypatch.setitem(formats.FORMATS, kind, cut)
    with pytest.raises(MutualignError, match="the exported file cannot be used: "):
        export_run(run, kind)
    assert old.path.is_file()
    assert files_of(run) == before


def test_an_onnx_file_that_takes_a_fixed_number_of_images_is_a_fault(run, monkeypatch):
    form = formats.FORMATS["onnx"]

    def encode(network, notes):
        model = onnx.load_from_string(form.encode(network, notes))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        return model.SerializeToString()

    monkeypatch.setitem(formats.FORMATS, "onnx", form._replace(encode=encode))
    with pytest.raises(MutualignError, match="cannot be used: InvalidArgument"):
        export_run(run)


@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_a_backbone_that_cannot_be_traced_is_named_with_the_formats_that_remain(run, monkeypatch, kind):
    forward = BACKBONES["two_block_cnn"].forward

    def branching(self, images):
        return forward(self, images) if images.sum() >= 0 else forward(self, -images)

    monkeypatch.setattr(BACKBONES["two_block_cnn"], "forward", branching)
    with pytest.raises(MutualignError, match=f"two_block_cnn cannot be exported as {kind}: ") as raised:
        export_run(run, kind)
    assert "safetensors" in str(raised.value).splitlines()[-1]
    assert not list(run.glob("model*"))


# The place, the extra, the command ------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.safetensors").mkdir()
    for out in (tmp_path / "file" / "model.safetensors", tmp_path / "folder.safetensors"):
        with pytest.raises(
            MutualignError, match=f"{out}: cannot be written: .*\n  do       choose another place with --out"
        ):
            export_run(run, "safetensors", out)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("run", "cache")) == [
        "file",
        "folder.safetensors",
    ]


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_onnx_says_what_to_install_and_the_other_formats_work(run, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MutualignError) as raised:
        export_run(run)
    assert str(raised.value) == (
        "the export needs onnx, onnxscript and onnxruntime\n  do       pip install 'mutualign[export]'"
    )
    assert export_run(run, "safetensors").path.is_file()


def test_an_unknown_format_is_answered_with_the_nearest(run):
    with pytest.raises(MutualignError, match='unknown format "onx"; did you mean "onnx"'):
        export_run(run, "onx")


def test_a_name_that_ends_otherwise_is_refused_before_it_replaces_something_else(run):
    before = files_of(run)
    with pytest.raises(MutualignError, match=r"result\.json: the name of a file of the format onnx ends in \.onnx"):
        export_run(run, "onnx", run / "result.json")
    assert files_of(run) == before


def test_a_run_that_is_not_complete_is_refused(tmp_path):
    Experiment.start(load_recipe("dann"), make_tiny_task(), 0, tmp_path / "begun")
    with pytest.raises(MutualignError, match="is not complete"):
        export_run(tmp_path / "begun")


def test_the_command_tells_file_size_difference_and_how_to_use_it(run):
    def told(*arguments) -> str:
        page = Console(file=StringIO(), width=80)
        ExportCommand(run, *arguments).main(page)
        return page.file.getvalue()

    first, again = told(), told()
    assert f"{run}/model.onnx (" in first
    assert "replaced" not in first
    assert "MB, replaced)" in again
    assert "tried on 1, 7, 64 real images (40 different ones, some of them again): the same classes" in first
    assert "pixels: uint8 [n, 12, 12, 3], grey repeated to 3 channels" in first
    assert 'model.run(None, {"pixels": pixels})' in first


@pytest.mark.slow
def test_the_command_line_exports_and_is_silent_on_standard_error(run, tmp_path):
    command = [sys.executable, "-m", "mutualign", "export", str(run), "--out", str(tmp_path / "made" / "my.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert str(tmp_path / "made" / "my.onnx") in done.stdout
    assert len(session_of(tmp_path / "made" / "my.onnx").get_outputs()) == 1
