"""The systems of a demo and the images that it takes: names, order, labels, uploads, and what is refused."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mutualign.data.pictures import to_data_url
from mutualign.data.types import ImageShape
from mutualign.demo.images import (
    LARGEST_UPLOAD,
    UNREADABLE,
    decode_digit,
    decode_upload,
    from_data_url,
    with_channels,
)
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.tiny_task import make_tiny_task

# Systems --------------------------------------------------------------------------------------------------------------


def test_source_only_comes_first_whatever_the_order_of_the_runs(digits, digit_runs):
    assert [system.is_adapted for system in digits.systems] == [False, True]
    assert [system.predictor.run.path for system in digits.systems] == digit_runs[::-1]
    assert digits.is_of_digits


def test_a_digit_is_drawn_only_for_systems_that_learned_grey_digits_and_are_for_digits_over_photos(digits, images):
    target, source = digits.samples
    grey = replace(target, pixels=target.pixels[..., :1])
    colour = replace(source, pixels=source.pixels.expand(-1, -1, -1, 3))
    for samples in ((grey, source), (target, colour), (grey, colour)):  # such as mnist-usps and mnistm-mnist
        assert not replace(digits, samples=samples).is_of_digits
    assert not images.is_of_digits


def test_runs_of_one_recipe_are_named_by_seed_or_by_path_and_a_run_given_twice_is_shown_once(image_run, tmp_path):
    recipe = load_recipe("source_only", ["stages.0.epochs=1", "stages.0.batch_size=20"])
    Experiment.start(recipe, make_tiny_task(), 1, tmp_path / "seed-1").run()
    named = [system.name for system in Gallery.load([image_run, tmp_path / "seed-1", image_run]).systems]
    assert named == [f"{recipe.name}, seed 0", f"{recipe.name}, seed 1"]
    for place in ("a", "b"):
        shutil.copytree(tmp_path / "seed-1", tmp_path / place / "seed-1")
    assert [system.name for system in Gallery.load([tmp_path / place / "seed-1" for place in "ab"]).systems] == [
        "a/seed-1",
        "b/seed-1",
    ]


def test_real_images_carry_their_true_classes_and_each_system_is_scored_on_them(images, image_run):
    task = make_tiny_task()
    target, source = images.samples
    assert torch.equal(target.pixels, task.target_test.images.pixels)
    assert target.labels == task.target_test.hidden_labels.tolist()
    assert source.labels == task.source_test.labels.tolist()
    (verdict,) = images.look_at_sample(0, 2)
    found = images.systems[0].probabilities(target.pixels).argmax(1).tolist()
    assert verdict.answer == images.class_names[found[2]]
    assert verdict.expected == images.class_names[target.labels[2]]
    assert (verdict.right, verdict.of) == (sum(a == b for a, b in zip(found, target.labels, strict=True)), 20)
    assert [name for name, _ in verdict.bars] == sorted(images.class_names, key=lambda name: -dict(verdict.bars)[name])


def test_without_target_labels_nothing_is_expected_of_target_images(image_run, tmp_path):
    run = shutil.copytree(image_run, tmp_path / "run")
    checkpoints = RunFolder.open(run).checkpoints
    review, info = checkpoints.load("review")
    checkpoints.save("review", {key: each for key, each in review.items() if "samples" in key or "least" in key}, info)
    (verdict,) = Gallery.load([run]).look_at_sample(0, 0)
    assert (verdict.expected, verdict.of, verdict.is_wrong) == (None, 0, False)


def test_of_many_classes_the_ten_likeliest_are_shown(images):
    names = tuple(f"class {number}" for number in range(40))
    system = replace(images.systems[0], predictor=replace(images.systems[0].predictor, class_names=names))
    verdict = replace(images, systems=(system,)).verdict(system, torch.arange(40.0) / 780)
    assert [name for name, _ in verdict.bars] == [f"class {number}" for number in range(39, 29, -1)]


def test_runs_that_cannot_be_compared_or_shown_are_refused_with_both_named(digit_runs, image_run, tmp_path):
    with pytest.raises(MutualignError, match="name one or more run folders"):
        Gallery.load([])
    with pytest.raises(MutualignError) as caught:
        Gallery.load([digit_runs[0], image_run])
    assert all(part in str(caught.value) for part in ("28x28", "12x12", str(digit_runs[0]), str(image_run)))
    other = shutil.copytree(image_run, tmp_path / "other")
    config = (other / "config.toml").read_text()
    (other / "config.toml").write_text(config.replace('"middle"', '"centre"'))
    with pytest.raises(MutualignError, match=r"(?s)classes.*left, middle, right.*left, centre, right"):
        Gallery.load([image_run, other])
    checkpoints = RunFolder.open(other).checkpoints
    review, info = checkpoints.load("review")
    checkpoints.save("review", review | {"target_samples": review["target_samples"].float()}, info)
    with pytest.raises(MutualignError, match="keeps no images to show"):
        Gallery.load([other])


# Images ---------------------------------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def png_header(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_colour_becomes_grey_by_luma_and_grey_becomes_colour_by_repeating():
    primary = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8).view(1, 1, 3, 3)
    assert with_channels(primary, 1).flatten().tolist() == [76, 150, 29]
    assert with_channels(primary[..., :1], 3)[0, 0, 0].tolist() == [255, 255, 255]


def test_small_images_are_sent_exactly_and_large_ones_as_thumbnails():
    noise = torch.randint(256, (28, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    sent = Image.open(io.BytesIO(from_data_url(to_data_url(noise, 320))))
    assert np.array_equal(np.array(sent), noise.numpy())
    sent = Image.open(io.BytesIO(from_data_url(to_data_url(torch.zeros(400, 800, 1, dtype=torch.uint8), 320))))
    assert (sent.size, sent.format) == ((320, 160), "JPEG")


@pytest.mark.parametrize(
    "sent",
    [None, 7, {"path": "/etc/passwd"}, "/etc/passwd", "data:image/png,abc", "data:image/png;base64,a*b", "x" * 9**7],
    ids=["nothing", "number", "path", "text", "not base64", "bad base64", "too long"],
)
def test_anything_but_a_data_url_is_answered_with_a_sentence(sent):
    with pytest.raises(MutualignError) as caught:
        from_data_url(sent)
    assert str(caught.value) == UNREADABLE


def test_a_file_at_the_limit_is_read_and_one_over_it_is_not():
    assert len(from_data_url(data_url(b"x" * LARGEST_UPLOAD))) == LARGEST_UPLOAD
    with pytest.raises(MutualignError, match="20 MB"):
        from_data_url(data_url(b"x" * (LARGEST_UPLOAD + 200)))


BROKEN = {
    "text": b"hello",
    "truncated": png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:3000],
    "bomb": png_header(40_000, 40_000),
    "no pixels": png_header(30, 30),
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("read", [decode_digit, lambda content: decode_upload(content, ImageShape(3, 28, 28))])
def test_a_broken_upload_is_answered_with_one_plain_sentence(read, content):
    with pytest.raises(MutualignError) as caught:
        read(content)
    assert str(caught.value) == UNREADABLE


def test_an_upload_is_cut_to_its_middle_and_a_digit_is_kept_whole():
    wide = np.zeros((100, 300), np.uint8)
    wide[:, 100:200] = 255
    assert decode_upload(png(wide), ImageShape(1, 28, 28)).float().mean() > 250
    whole = decode_digit(png(np.repeat(wide, 4, axis=0).repeat(4, axis=1)))
    assert whole.shape == (93, 280)
    assert whole.float().mean() == pytest.approx(85, abs=3)
