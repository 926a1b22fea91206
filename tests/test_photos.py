"""Runs on real photos, end to end: exported with the frozen network, used on a file, shown in demo and report."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.folders.image_io import decode_image
from mutualign.data.types import ImageShape
from mutualign.demo.images import decode_upload
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError
from mutualign.export.exporter import export_run
from mutualign.export.formats import FORMATS, Format, OpenedFile, register_format
from mutualign.export.formats.base import read_class_names
from mutualign.export.formats.safetensors import load_exported
from mutualign.io.tensors import pack
from mutualign.nn.pretrained import PUBLISHED
from mutualign.nn.weights import NetworkWeights
from mutualign.recipes import load_recipe
from mutualign.report.html import page_of
from mutualign.runs.experiment import Experiment
from mutualign.runs.loading import load_task
from mutualign.runs.predictor import Predictor

CLASSES = ("bike", "desk_lamp", "mug")
SMALL = "features=efficientnet_lite0"  # half the work of the default
SHORT = ("stages.0.epochs=1", "stages.0.epoch_steps=12", "stages.0.batch_size=12", "views=1", SMALL)
SIDE = ImageShape(3, 224, 224)


@pytest.fixture(scope="module")
def photos(real_data, tmp_path_factory):
    """Eight photos of each of three classes from two cameras."""
    folder = tmp_path_factory.mktemp("photos")
    for domain in ("dslr", "webcam"):
        for name in CLASSES:
            (folder / domain / name).mkdir(parents=True)
            for path in sorted((real_data / "office31" / domain / name).glob("*.jpg"))[:8]:
                shutil.copy(path, folder / domain / name)
    return folder


@pytest.fixture(scope="module")
def runs(photos):
    """A run of `photos` with target labels, and one of `photos_source_only` without."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(photos / "cache"))
        for name, labelled in (("photos", photos / "webcam"), ("photos_source_only", None)):
            recipe = load_recipe(name, SHORT)
            own = FolderTask(photos / "dslr", photos / "webcam", target_test=labelled)
            found.append(photos / "runs" / name / "seed-0")
            Experiment.start(recipe, load_task("", photos, recipe, own), 0, found[-1]).run()
    return found


@pytest.fixture(scope="module")
def predictor(runs) -> Predictor:
    return Predictor.load(runs[0], accelerator="cpu")


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the run with target labels, to write into or to change."""
    return shutil.copytree(runs[0], tmp_path / "run")


@pytest.mark.slow
def test_photos_that_a_run_keeps_are_classified_as_it_recorded(predictor):
    checkpoints = predictor.run.checkpoints
    samples = checkpoints.load("review")[0]["target_samples"]
    recorded = checkpoints.load_outputs(0, "selected")[0]["target_logits"].softmax(1)
    assert samples.shape == (24, 224, 224, 3)
    torch.testing.assert_close(predictor.probabilities(samples), recorded, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_the_printed_lines_classify_a_photo_file_as_the_run_does(runs, predictor, photos, tmp_path, monkeypatch, name):
    monkeypatch.setattr("mutualign.export.exporter.BATCHES", (2, 27))  # each photo that the run kept, once
    done = export_run(runs[0], name, tmp_path / f"model{FORMATS[name].suffix}")
    assert (done.pixels, done.images) == (("uint8", 224, 224, 3), 27)
    assert (done.size > 13e6) == (name != "safetensors")  # the frozen network has 3.4 million weights
    for path in sorted((photos / "webcam").rglob("*.jpg"))[::9]:
        found = {}
        exec(done.usage.replace("photo.jpg", str(path)), found)  # noqa: S102
        expected = predictor.probabilities(decode_image(path.read_bytes(), path, SIDE)[None])
        np.testing.assert_allclose(np.asarray(found["probabilities"]), expected, rtol=0, atol=FORMATS[name].tolerance)
        assert tuple(found["names"]) == CLASSES


def test_safetensors_hold_the_head_and_name_the_weights_of_the_frozen_network(run):
    path = export_run(run, "safetensors").path
    with safe_open(path, "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {"features", "head"}  # noqa: SIM118
        metadata = {key: text for key, text in file.metadata().items() if key != "sha256"}
    sha256 = PUBLISHED["efficientnet_lite0"].sha256
    assert json.loads(metadata["frozen_network"])["sha256"] == sha256
    assert (
        f"bottleneck on 1280 features of efficientnet_lite0 (frozen; weights with SHA-256 {sha256})"
        in (metadata["model_card"])
    )
    for text, message in (
        (
            metadata["frozen_network"].replace(sha256, "0" * 64),
            rf"other weights\n  file +SHA-256 0000.*\n.*{sha256}",
        ),
        (metadata["frozen_network"].replace("lite0", "lite9"), 'unknown pretrained network "efficientnet_lite9"'),
        ('{"network": "efficientnet_lite0"}', "not a readable exported classifier"),
    ):
        path.write_bytes(pack(load_file(path), {**metadata, "frozen_network": text}))
        with pytest.raises(MutualignError, match=message):
            load_exported(path)


def test_a_frozen_network_with_other_weights_is_found_and_nothing_is_written(run, monkeypatch):
    @register_format("eager")
    class Eager(Format):
        """The network itself."""

        suffix, usage = ".txt", ""

        def encode(self, network, metadata):
            self.network, self.names = network, read_class_names(metadata)
            return b"content"

        def decode(self, content):
            return OpenedFile(self.network, self.names)

    load = NetworkWeights.load

    def changed(chosen):
        network = load(chosen)
        network.stem.conv.weight.data *= 1.02
        return network

    try:
        monkeypatch.setattr(NetworkWeights, "load", changed)
        with pytest.raises(MutualignError, match=r"does not agree with the run: .* images differ"):
            export_run(run, "eager")
    finally:
        del FORMATS["eager"]
    assert not list(run.glob("model*"))


def test_a_run_that_kept_features_instead_of_photos_is_neither_exported_nor_shown(run):
    checkpoints = Predictor.load(run).run.checkpoints
    review, info = checkpoints.load("review")
    features = {f"{domain}_samples": torch.zeros(4, 1, 1, 1280, dtype=torch.float16) for domain in ("source", "target")}
    checkpoints.save("review", review | features, info)
    hint = "  hint:    train the run again in another folder"
    with pytest.raises(MutualignError, match=f"kept no photos for the check\n{hint}$"):
        export_run(run, "safetensors")
    with pytest.raises(MutualignError, match="keeps no images to show"):
        Gallery.load([run])


def test_the_demo_shows_photos_of_both_domains_and_classifies_an_upload_as_predict_does(runs, predictor, photos):
    gallery = Gallery.load(runs)
    assert [system.is_adapted for system in gallery.systems] == [False, True]
    assert [system.predictor.run.path for system in gallery.systems] == runs[::-1]
    target, source = gallery.samples
    assert target.labels == [0] * 8 + [1] * 8 + [2] * 8
    assert len(source.labels) == len(source.pixels)
    verdicts = gallery.look_at_sample(0, 9)
    expected = predictor.probabilities(target.pixels)
    assert [verdict.expected for verdict in verdicts] == ["desk_lamp"] * 2
    assert verdicts[1].right == int((expected.argmax(1) == torch.tensor(target.labels)).sum()) > 16
    path = next((photos / "webcam" / "mug").glob("*.jpg"))
    verdict = gallery.look(decode_upload(path.read_bytes(), gallery.shape))[1]
    (predicted,) = predictor.predict([(str(path), decode_image(path.read_bytes(), path, SIDE))])
    assert (verdict.answer, verdict.probability) == (predicted.label, pytest.approx(predicted.probability))
    assert Gallery.load(runs[1:]).samples[0].labels is None


def test_reports_of_photos_show_them_with_and_without_target_labels(runs):
    for run, labelled in zip(runs, (True, False), strict=True):
        page = page_of(run).html()
        assert ("Confident and right" in page) == labelled
        assert page.count('class="gallery photos"') >= 3
        assert page.count("data:image/jpeg") == 24 + 3
        assert ("desk_<wbr>lamp → " in page) == labelled
