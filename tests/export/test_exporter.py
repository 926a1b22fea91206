"""The exporter: a file that disagrees with its run is never written, and no other file is ever replaced."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mutualign.cli.console import PlainConsole
from mutualign.cli.export import Export as ExportCommand
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.folders.image_io import ORIENTATION, decode_image
from mutualign.data.task import Task
from mutualign.data.types import ImageShape, LabelledImages, TargetDataset, UnlabelledImages
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError
from mutualign.export.exporter import check, export_run, photo_usage, real_images
from mutualign.export.formats import FORMATS, Format, OpenedFile, register_format
from mutualign.export.formats.safetensors import load_exported
from mutualign.export.model_card import (
    LICENCE,
    PHOTOS,
    PRETRAINED_LICENCE,
    UNKNOWN_LICENCE,
    ModelFacts,
    licences,
    model_card,
)
from mutualign.nn.backbones import BACKBONES
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import StageAlarm
from mutualign.runs.predictor import Predictor
from tests.export.conftest import SHORT
from tests.tiny_task import make_tiny_task


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(run, which="selected") -> Predictor:
    return Predictor.load(run, which, accelerator="cpu", precision="float32")


# The check ------------------------------------------------------------------------------------------------------------


class Altered(Format):
    """A format that alters what the run's classifier gives."""

    suffix, usage, tolerance = ".altered", "", 1e-4

    def __init__(self, predictor, alter, names=("left", "middle", "right")):
        self.predictor, self.alter, self.names = predictor, alter, names

    def encode(self, network, metadata):
        return b"content"

    def decode(self, content):
        return OpenedFile(lambda pixels: self.alter(self.predictor.probabilities(pixels)), self.names)


NUDGE = torch.tensor([2e-4, -2e-4, 0.0])


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda p: p + NUDGE, r"1 of 1 images differ, the first is image 0\n  file     \w+, with a probability of"),
        (lambda p: p * torch.tensor([1.0, torch.nan, 1.0]), "1 of 1 images differ"),
        (lambda p: p.flip(1), "images differ"),
        (lambda p: p.double(), "it returns torch.float64"),
        (lambda p: p[:, :2], r"it returns torch.float32 of shape \(1, 2\)"),
        (lambda p: 1 / 0, "cannot be used: ZeroDivisionError"),
    ],
    ids=["nudged", "NaN", "flipped", "float64", "two classes", "fails"],
)
def test_a_file_that_disagrees_is_refused_and_the_difference_is_described(finished, alter, message):
    predictor = load(finished)
    with pytest.raises(MutualignError, match=message) as raised:
        check(b"content", Altered(predictor, alter), predictor, real_images(predictor)[0])
    assert "\n  hint:    " in str(raised.value)


def test_a_difference_within_the_tolerance_passes_and_is_reported(finished):
    predictor = load(finished)
    found = check(b"content", Altered(predictor, lambda p: p + NUDGE / 4), predictor, real_images(predictor)[0])
    assert found == pytest.approx(5e-5, abs=1e-6)


def test_another_class_within_the_tolerance_is_a_tie_and_passes(finished, monkeypatch):
    predictor, tied = load(finished), torch.tensor([1 / 3 + 2e-5, 1 / 3, 1 / 3 - 2e-5])
    monkeypatch.setattr(Predictor, "probabilities", lambda self, images: tied.expand(len(images), 3))
    images, other = real_images(predictor)[0], Altered(predictor, lambda p: p.flip(1))
    assert check(b"content", other, predictor, images) == pytest.approx(4e-5, abs=1e-6)


def test_class_names_in_another_order_are_refused(finished):
    predictor = load(finished)
    form = Altered(predictor, lambda p: p, ("middle", "left", "right"))
    with pytest.raises(MutualignError, match=r"its classes are \('middle', 'left', 'right'\)"):
        check(b"content", form, predictor, real_images(predictor)[0])


def test_the_check_uses_images_of_both_domains_and_repeats_them_if_the_run_kept_few(finished):
    predictor = load(finished)
    review, _ = predictor.run.checkpoints.load("review")
    images, different = real_images(predictor)
    assert (len(images), different) == (64, 40)
    assert torch.equal(images[:20], review["source_samples"].repeat(1, 1, 1, 3))
    assert torch.equal(images[20:40], review["target_samples"])
    assert torch.equal(images[40:], images[:24])


# What is exported -----------------------------------------------------------------------------------------------------


def test_the_last_epoch_is_exported_on_request(run):
    """The last epoch's weights are changed here, the selected one's are not."""
    checkpoints = RunFolder.open(run).checkpoints
    weights, info = checkpoints.load_weights(0, "last")
    weights["head.bias"] += torch.tensor([0.0, 1.0, 3.0])
    checkpoints.save_weights(0, "last", weights, info)
    done = export_run(run, "safetensors", epoch="last")
    images, _ = real_images(load(run))
    found = load_exported(done.path).probabilities(images)
    assert torch.equal(found, load(run, "last").probabilities(images))
    assert (found - load(run).probabilities(images)).abs().max() > 0.1


def test_the_card_says_that_the_target_accuracy_is_unknown_and_lists_alarms(finished):
    facts = ModelFacts.of(load(finished), "last", "float32")
    alarm = StageAlarm("collapse", "one class\nfor all", "too fast", 0)
    card = model_card(ModelFacts(**{**vars(facts), "target_accuracy": None, "alarms": [alarm]}))
    assert "- accuracy on target test images: unknown (no target labels)\n" in card
    assert "- collapse (stage 1): one class for all; too fast\n" in card
    assert "of the last stage, the last one\n" in card
    assert "float32 [n, height 12, width 12, channels 3], as in training, not scaled" in card


def test_a_new_format_is_one_class_with_the_decorator(run):
    @register_format("plain")
    class Plain(Format):
        """The class names alone."""

        suffix, usage = ".txt", "open({path!r})"

        def encode(self, network, metadata):
            self.network = network
            return metadata["class_names"].encode()

        def decode(self, content):
            return OpenedFile(self.network, tuple(re.findall(r"\w+", content.decode())))

    try:
        done = export_run(run, "plain")
    finally:
        del FORMATS["plain"]
    assert done.path.read_text() == '["left","middle","right"]'
    assert done.usage == f"open({str(done.path)!r})"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "I;16", "P", "CMYK"])
def test_the_printed_lines_read_a_photo_as_predict_does(tmp_path, monkeypatch, mode, channels):
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    if mode == "I;16":
        photo = Image.fromarray(values[..., :2].copy().view(np.uint16)[..., 0])
    else:
        photo = Image.fromarray(values).convert(mode)
    content = io.BytesIO()
    photo.save(content, "TIFF" if mode == "CMYK" else "PNG", **({"transparency": 3} if mode == "P" else {}))
    check_printed_lines(content.getvalue(), ImageShape(channels, 24, 20), tmp_path, monkeypatch)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_printed_lines_read_a_large_jpeg_as_predict_does(tmp_path, monkeypatch, orientation):
    """Its decoder reduces it, before it is turned."""
    values = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)
    content, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(values).save(content, "JPEG", exif=exif)
    check_printed_lines(content.getvalue(), ImageShape(3, 24, 20), tmp_path, monkeypatch)


def check_printed_lines(photo, shape, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "photo.jpg").write_bytes(photo)
    found = {}
    exec(photo_usage(shape), found)  # noqa: S102
    np.testing.assert_array_equal(found["pixels"], decode_image(photo, "photo.jpg", shape)[None])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_run_on_image_files_that_trained_its_own_network_says_how_a_photo_becomes_pixels(tmp_path, channels):
    random = np.random.default_rng(0)
    for part in ("source/a", "source/b", "target"):
        (tmp_path / part).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (16, 14, 3), np.uint8)
            photo = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
            photo.save(tmp_path / part / f"{number}.png")
    recipe = load_recipe("source_only", ["backbone=two_block_cnn", "stages.0.epochs=1", "stages.0.epoch_steps=2"])
    task = FolderTask(tmp_path / "source", tmp_path / "target", image_size=12).load()
    Experiment.start(recipe, task, 0, tmp_path / "run").run()
    done, predictor = export_run(tmp_path / "run", "safetensors"), load(tmp_path / "run")
    path, found = tmp_path / "target" / "0.png", {}
    exec(done.usage.replace("photo.jpg", str(path)), found)  # noqa: S102
    pixels = decode_image(path.read_bytes(), path, ImageShape(channels, 12, 12))
    assert torch.equal(found["probabilities"], predictor.probabilities(pixels[None]))
    card = model_card(ModelFacts.of(predictor, "selected", "uint8"))
    assert f"- {PHOTOS}\n" in card
    assert card.endswith(f"## Licence\n\n- {LICENCE}\n")


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("source_only", [], [LICENCE]),
        ("photos", [], [LICENCE, PRETRAINED_LICENCE]),
        ("source_only", ["backbone=finetune:efficientnet_lite0"], [LICENCE, PRETRAINED_LICENCE]),
        ("source_only", ["backbone=timm:resnet18", "backbone_weights=pretrained"], [LICENCE, UNKNOWN_LICENCE]),
        ("source_only", ["backbone=timm:resnet18"], [LICENCE]),
    ],
)
def test_the_licence_of_pretrained_weights_is_named_whether_or_not_they_stay_frozen(timm, recipe, overrides, expected):
    assert licences(load_recipe(recipe, overrides)) == expected


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_backbone_that_cannot_be_traced_is_named_with_the_formats_that_remain(run, monkeypatch):
    forward = BACKBONES["two_block_cnn"].forward

    def branching(self, images):
        return forward(self, images) if images.sum() >= 0 else forward(self, -images)

    monkeypatch.setattr(BACKBONES["two_block_cnn"], "forward", branching)
    with pytest.raises(MutualignError, match="two_block_cnn cannot be exported as torch-export: ") as raised:
        export_run(run, "torch-export")
    assert "safetensors" in str(raised.value).splitlines()[-1]
    assert not list(run.glob("model*"))


def test_existing_files_stay_without_force_and_a_runs_own_files_always(run, tmp_path):
    done = export_run(run, "safetensors")
    before = files_of(tmp_path)
    with pytest.raises(MutualignError, match=r"exists already\n  hint:    .*--force"):
        export_run(run, "safetensors")
    for own in sorted((run / "checkpoints").glob("*.safetensors"))[:1]:
        with pytest.raises(MutualignError, match="belongs to a run"):
            export_run(run, "safetensors", own, force=True)
    with pytest.raises(MutualignError, match=r"result\.json: the name of a file in the format onnx must end in"):
        export_run(run, "onnx", run / "result.json", force=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MutualignError, match="cannot be written"):
        export_run(run, "safetensors", tmp_path / "file" / "model.safetensors")
    assert files_of(tmp_path) == before | {"file": b"in the way"}
    assert export_run(run, "safetensors", force=True) == done._replace(replaced=True)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_onnx_says_what_to_install(run, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MutualignError, match=r"needs onnx.*\n  hint:    pip install 'mutualign\[export\]'"):
        export_run(run)


def test_an_unknown_format_an_incomplete_run_and_a_missing_one_are_refused_and_leave_nothing(tmp_path):
    Experiment.start(load_recipe("dann"), make_tiny_task(), 0, tmp_path / "begun")
    before = files_of(tmp_path)
    for run, name, message in (
        ("begun", "onx", 'unknown format "onx"; did you mean "onnx"'),
        ("begun", "onnx", "is not complete"),
        ("nowhere", "onnx", "nowhere is not a run folder"),
    ):
        with pytest.raises(MutualignError, match=message):
            export_run(tmp_path / run, name)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(run, value):
    checkpoints = RunFolder.open(run).checkpoints
    weights, info = checkpoints.load_weights(0, "selected")
    weights["head.weight"][0, 0] = value
    checkpoints.save_weights(0, "selected", weights, info)
    with pytest.raises(MutualignError, match=r"head\.weight.*finite"):
        export_run(run, "safetensors")
    assert not list(run.glob("model*"))


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_prints_file_size_difference_and_how_to_use_it_and_nothing_else(run, tmp_path, capfd):
    page, out = PlainConsole(file=io.StringIO(), width=80), tmp_path / "made" / "my [v2].onnx"
    ExportCommand(run, out=out).main(page)
    printed = page.file.getvalue()
    assert f"{out} (" in printed
    assert "checked on 1, 7, 64 real images (40 different ones, some repeated): largest difference" in printed
    assert "pixels: uint8 [n, 12, 12, 3], grey repeated to 3 channels" in printed
    assert 'model.run(None, {"pixels": pixels})' in printed
    assert out.is_file()
    assert "".join(capfd.readouterr()) == ""


def test_a_run_on_vectors_takes_vectors_and_is_not_shown_as_pictures(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = UnlabelledImages(torch.randn(40, 1, 1, 6, generator=generator))
    source, target = LabelledImages(images, torch.arange(40) % 3), TargetDataset(images, None)
    task = Task("vectors", "made in a test", ("a", "b", "c"), source, source, target, target)
    run = tmp_path / "run"
    Experiment.start(load_recipe("source_only", [*SHORT, "backbone=mlp"]), task, 0, run).run()
    page = PlainConsole(file=io.StringIO(), width=200)
    ExportCommand(run, "safetensors").main(page)
    printed = page.file.getvalue()
    assert "64 real vectors: largest difference" in printed
    assert "pixels: float32 [n, 1, 1, 6], one vector per row\n" in printed
    with pytest.raises(MutualignError, match="takes feature vectors, which cannot be looked at"):
        Gallery.load([run])
