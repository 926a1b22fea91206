"""Features of scanned photos: each row is its photo's, kept by content, and nothing is computed twice."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from mutualign.data.features import extract as extracting
from mutualign.data.features.extract import RULE, extract
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.features.views import photo_views
from mutualign.data.folders.image_cache import Readable
from mutualign.data.folders.listing import Listing, list_unlabelled
from mutualign.data.folders.readable import part_of
from mutualign.data.folders.scan import Scan, scan
from mutualign.data.types import ImageShape, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.nn.pretrained import PUBLISHED
from tests.data.folders.images import FLOATS

TWO = FeatureSettings(views=2)


def features(folder, settings=TWO):
    return extract(scan(list_unlabelled(folder), "x"), settings, "x")


def kept_files(tmp_path):
    return sorted((tmp_path / "cache" / "mutualign" / "features").rglob("*.bytes"))


def test_each_row_has_the_features_and_the_small_picture_of_its_photo(photos, network):
    found = features(photos / "target", FeatureSettings(views=3))
    paths = list_unlabelled(photos / "target").paths
    assert (found.images.pixels.shape, found.rows, found.bad) == ((16, 3, 1, 1280), tuple(range(16)), ())
    assert found.images.pixels.dtype == torch.float16
    assert found.pictures.pixels.shape == (16, 64, 64, 3)
    digests = scan(list_unlabelled(photos / "target"), "x").digests
    for row, path in enumerate(paths):
        views = photo_views(path.read_bytes(), path, TWO.pretrained.side, 3, digests[row])
        assert torch.equal(found.images.pixels[row, :, 0], network(views).half())
        shown = found.pictures.pixels[row].float()
        left, right = shown[:, :30].mean(), shown[:, 34:].mean()
        assert (left > right + 50) if path.name.startswith("left") else (right > left + 50)


def test_features_are_kept_by_content_and_computed_again_for_another_network_or_other_views(
    photos, network, tmp_path, monkeypatch
):
    first = features(photos / "target")
    assert network.pictures == 2 * (16 + 4)  # four photos are timed before
    shutil.copytree(photos / "target", photos / "moved")
    again = features(photos / "moved")
    assert (network.pictures, again.key) == (40, first.key)
    assert torch.equal(again.images.pixels, first.images.pixels)
    assert len(kept_files(tmp_path)) == 1
    keys = {first.key, features(photos / "target", FeatureSettings(views=1)).key}
    (photos / "moved" / "left0.png").write_bytes((photos / "target" / "right0.png").read_bytes())
    keys.add(features(photos / "moved").key)
    monkeypatch.setitem(PUBLISHED, TWO.network, PUBLISHED[TWO.network]._replace(sha256="another"))
    keys.add(features(photos / "target").key)
    monkeypatch.setattr(extracting, "RULE", RULE + 1)
    keys.add(features(photos / "target").key)
    assert len(keys) == len(kept_files(tmp_path)) == 5


def test_a_photo_that_is_added_or_removed_costs_only_its_own_features(photos, network, monkeypatch, capsys):
    monkeypatch.setattr(extracting, "WORTH_SAYING", 0.0)
    before = features(photos / "target")
    added = list_unlabelled(photos / "test").paths[0]
    shutil.copy(added, photos / "target" / "added.png")
    (photos / "target" / "left0.png").unlink()
    network.pictures = 0
    capsys.readouterr()
    after = features(photos / "target")
    assert network.pictures == 2 * 2  # one photo in two views: to estimate the time, and for its row
    assert "features of 1 of 16 photos (x, 2 views each)" in capsys.readouterr().err
    assert torch.equal(after.images.pixels[1:], before.images.pixels[1:])
    assert after.key != before.key
    features(photos / "test")
    assert network.pictures == 4 + 2 * (4 + 7)  # one of the eight is known


def test_a_damaged_cache_is_computed_again(photos, network, tmp_path):
    first = features(photos / "target").images.pixels.clone()
    (kept,) = kept_files(tmp_path)
    for damage in (bytes([kept.read_bytes()[0] ^ 1]) + kept.read_bytes()[1:], kept.read_bytes()[:-1]):
        kept.unlink()  # a file of its own: the old one is mapped
        kept.write_bytes(damage)
        before = network.pictures
        assert torch.equal(features(photos / "target").images.pixels, first)
        assert network.pictures > before


def test_too_little_room_is_said_before_the_work_starts(photos, network, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(extracting.shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 1000))
    with pytest.raises(MutualignError, match=r"0 MiB are free; the features need .* MiB\n  hint: (.|\n)*--set views=1"):
        features(photos / "target")
    assert network.pictures == 0


def test_how_long_it_takes_is_said_before_only_if_it_is_long(photos, network, monkeypatch, capsys):
    features(photos / "target")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(extracting, "WORTH_SAYING", 0.0)
    features(photos / "test")
    assert "features of 8 photos (x, 2 views each): about 0 s, once; later runs reuse them" in capsys.readouterr().err


def test_a_pause_during_one_photo_does_not_change_the_time_that_is_said(photos, network, monkeypatch, capsys):
    clock = Mock(perf_counter=Mock(side_effect=[0, 1, 1, 901, 901, 902, 902, 903]))  # start and end of each photo
    monkeypatch.setattr(extracting, "time", clock)
    monkeypatch.setattr(extracting.os, "sched_getaffinity", lambda process: {0}, raising=False)
    features(photos / "target")
    assert "features of 16 photos (x, 2 views each): about 16 s, once" in capsys.readouterr().err


def test_a_photo_that_cannot_be_read_is_named_and_left_out(photos, network):
    (photos / "target" / "floats.tif").write_bytes(FLOATS)  # its header can be read
    (photos / "target" / "text.jpg").write_text("no photo")
    found = features(photos / "target")
    assert len(found.images) == 16
    assert [fault.partition(":")[0].rpartition("/")[2] for fault in found.bad] == ["text.jpg", "floats.tif"]
    folder = photos / "bad"
    folder.mkdir()
    (folder / "floats.tif").write_bytes(FLOATS)
    with pytest.raises(MutualignError, match=r"bad: none of the images can be decoded\n  such as  .*floats\.tif"):
        features(folder)


def test_the_fault_of_a_photo_goes_to_its_part_whatever_its_path_is_called(tmp_path):
    bad, good = tmp_path / "12:30: a photo.tif", tmp_path / "good.png"
    part = Scan(Listing(tmp_path, (bad, good), None), ("1", "2"), (ImageShape(3, 8, 8),) * 2, ())
    images, pictures = (UnlabelledImages(torch.zeros(1, 1, 1, 3, dtype=kind)) for kind in (torch.float16, torch.uint8))
    fault = f"{bad}: floating-point pixels"
    found = part_of(part, part, Readable(images, (1,), (fault,), "key", pictures))
    assert (found.rows, found.bad) == ((1,), (fault,))


def test_features_that_are_not_finite_are_refused_by_name(photos, network, monkeypatch):
    monkeypatch.setattr(type(network), "__call__", lambda self, pixels: torch.full((len(pixels), 1280), torch.nan))
    with pytest.raises(MutualignError, match=r"none of the images can .*\n .*left0\.png: its features are not finite"):
        features(photos / "target")


def test_without_the_package_of_the_weights_the_extra_is_named_but_kept_features_are_used(photos, network, monkeypatch):
    kept = features(photos / "target")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos / "cache"))
    missing = PUBLISHED[TWO.network]._replace(package="no-such-package")
    monkeypatch.setitem(PUBLISHED, TWO.network, missing)
    extracting.feature_network.cache_clear()
    assert torch.equal(features(photos / "target").images.pixels, kept.images.pixels)
    with pytest.raises(MutualignError, match=r"no-such-package is not installed\n  hint: .*'mutualign\[photos\]'"):
        features(photos / "test")
    with pytest.raises(MutualignError, match=r'unknown pretrained network "resnet"'):
        features(photos / "test", replace(TWO, network="resnet"))
