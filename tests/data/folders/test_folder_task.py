"""A user's own images as a task: its labels, its notes, its identity, and training on it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mutualign.data.datasets import find_task
from mutualign.data.features import extract
from mutualign.data.features.settings import FeatureSettings
from mutualign.data.folders import folder_task, image_cache, image_io
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.task import Task
from mutualign.errors import MutualignError
from mutualign.evaluation.target_labels import target_accuracy
from mutualign.io.typed import parse_typed
from mutualign.nn.randomness import generator
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.data.features.conftest import CountingNetwork
from tests.data.folders.images import FLOATS, encoded, write


def load(folders, **settings) -> Task:
    return FolderTask(folders / "source", folders / "target", **settings).load()


def test_folders_make_a_task_whose_labels_go_with_their_images(folders):
    task = load(folders, target_test=folders / "test")
    assert (task.name, task.class_names, task.shape) == ("source-to-target", ("dark", "light"), (3, 6, 6))
    assert (len(task.source_train), len(task.source_test), len(task.target_train)) == (36, 4, 10)
    for part in (task.source_train, task.source_test):
        brightness = part.images.pixels[:, 0, 0, 0]
        assert part.labels.tolist() == (brightness > 100).long().tolist()
    by_brightness = (task.target_test.images.pixels[:, 0, 0, 0] >= 121).long()
    assert target_accuracy(torch.nn.functional.one_hot(by_brightness, 2).float(), task.target_test) == 1.0
    again = parse_typed(task.folders.to_dict(), FolderTask, "config.toml, own_images")
    assert again.load().identity == task.identity
    assert target_accuracy(torch.zeros(10, 2), load(folders).target_test) is None


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("cam.2023", "cam.2024", "cam.2023-to-cam.2024"),
        ("Dr. Smith", "photos.v1.5", "Dr.-Smith-to-photos.v1.5"),
        ("labels.CSV", "table.parquet", "labels-to-table"),
        ("features.v2.npz", "x.npy", "features.v2-to-x"),
    ],
)
def test_a_name_keeps_what_follows_a_dot_unless_it_is_the_suffix_of_a_file(tmp_path, source, target, name):
    assert FolderTask(tmp_path / source, tmp_path / target).name == name


def test_a_tenth_of_each_class_is_held_out_by_an_order_of_its_own(folders):
    """A naive loop: runs of earlier versions resume on the same split."""
    task = load(folders)
    held = task.source_test.images.pixels[:, 0, 0, 0].tolist()
    expected = []
    for name, first in (("dark", 30), ("light", 200)):
        paths = sorted(f"{number}.png" for number in range(20))
        order = torch.randperm(20, generator=generator("own images", "held out", name)).tolist()
        expected += [first + int(paths[row].removesuffix(".png")) for row in sorted(order[:2])]
    assert held == expected


# The identity ---------------------------------------------------------------------------------------------------------


def test_the_identity_covers_images_labels_split_and_size(folders):
    def csv(name: str, swapped: bool) -> None:
        rows = [f"source/dark/{i}.png,{'light' if swapped and i == 3 else 'dark'}" for i in range(20)]
        rows += [f"source/light/{i}.png,{'dark' if swapped and i == 3 else 'light'}" for i in range(20)]
        (folders / name).write_text("\n".join(["path,label", *rows]), encoding="utf-8")

    csv("a.csv", swapped=False)
    csv("b.csv", swapped=True)
    target, tests = folders / "target", {"source_test": folders / "a.csv", "target_test": folders / "test"}
    task = FolderTask(folders / "a.csv", target, **tests).load()
    other_labels = FolderTask(folders / "b.csv", target, **tests).load()
    other_split = FolderTask(folders / "a.csv", target, target_test=folders / "test").load()
    other_size = FolderTask(folders / "a.csv", target, **tests, image_size=5).load()
    write(folders / "target" / "deep" / "3.png", 61, mode="RGB")
    other_image = FolderTask(folders / "a.csv", target, **tests).load()
    shutil.move(folders / "test" / "dark" / "0.png", folders / "test" / "light" / "moved.png")
    other_test = FolderTask(folders / "a.csv", target, **tests).load()
    identities = {one.identity for one in (task, other_labels, other_split, other_size, other_image, other_test)}
    assert len(identities) == 6
    assert not task.is_data(other_labels.identity)


def test_the_identity_of_earlier_versions_had_no_labels_and_is_still_accepted(folders):
    task = load(folders)
    earlier, _, _ = task.identity.partition(", labels ")
    assert earlier.startswith("own images of 6x6, 2 classes (dark, light): source 36 images ")
    assert task.is_data(earlier)


def test_a_run_resumes_under_the_identity_of_an_earlier_version_and_not_with_other_labels(folders):
    table = folders / "labels.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted((folders / "source").rglob("*.png"))]
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    recipe = load_recipe(
        "fast", ["stages.0.epochs=1", "stages.0.batch_size=30", "stages.0.epoch_steps=0", "backbone=mlp"]
    )
    task = FolderTask(table, folders / "target", source_test=table).load()
    places = [folders / "runs" / "task" / name / "seed-0" for name in ("earlier", "now")]
    for place in places:
        Experiment.start(recipe, task, 0, place)
    config = places[0] / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(task.identity, task.former_identities[0]), encoding="utf-8")
    assert Experiment.resume(places[0], folders).run()
    rows = [row.replace(",dark", ",light") if "/7.png" in row else row for row in rows]
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    with pytest.raises(MutualignError, match="the run was started with other data"):
        Experiment.resume(places[1], folders).run()


# Bad images -----------------------------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_read_is_named_and_left_out_with_its_label(folders):
    for number in range(80):
        write(folders / "source" / "dark" / f"more{number}.png", 5)
    (folders / "source" / "dark" / "0.png").write_bytes(b"no image")
    task = load(folders, source_test=folders / "test")
    assert len(task.source_train) == 119
    assert task.source_train.labels.tolist() == (task.source_train.images.pixels[:, 0, 0, 0] > 100).long().tolist()
    assert any("0.png" in note for note in task.notes)
    with pytest.raises(MutualignError, match=r"1 of .* cannot be read; none may be left out\n  bad .*0\.png"):
        load(folders, on_bad_image="fail")


@pytest.mark.parametrize("features", [None, FeatureSettings("efficientnet_lite0", 1)], ids=["pixels", "features"])
def test_the_identity_tells_which_images_could_not_be_decoded(folders, monkeypatch, features):
    def without(name: str) -> Task:
        def read(path: Path) -> bytes:
            if path == folders / "target" / "deep" / name:
                raise MutualignError(f"{path}: Input/output error")
            return image_io.read_image_file(path)

        monkeypatch.setattr(image_cache, "read_image_file", read)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folders / "cache" / name))
        return load(folders, features=features)

    monkeypatch.setattr(extract, "feature_network", lambda network: CountingNetwork())
    monkeypatch.setattr(folder_task, "BAD_SHARE", 0.1)
    one, other, both = without("3.png"), without("4.png"), without("none")
    assert len({one.identity, other.identity, both.identity}) == 3
    assert len(one.target_train) == len(other.target_train) == len(both.target_train) - 1
    assert both.identity.partition(", labels ")[2].isalnum()  # as in runs of earlier versions
    assert one.is_data(one.identity.partition(", without ")[0])
    assert not one.is_data(other.identity)


@pytest.mark.parametrize("fault", ["no image", "broken link"])
def test_more_than_one_in_a_hundred_unreadable_images_stop_the_run(folders, fault, monkeypatch):
    path = folders / "target" / "deep" / "3.png"
    path.unlink()
    if fault == "no image":
        path.write_bytes(b"no image")
    else:
        path.symlink_to("nowhere.png")
    monkeypatch.setattr(folder_task, "read_pixels", None)  # refused before any image is decoded
    with pytest.raises(MutualignError, match=r"target: 1 of 10 images cannot be read; up to 1 %, here 0, may"):
        load(folders)


def test_all_unreadable_images_are_named_at_once_and_counted_of_the_folder_that_the_user_gave(folders):
    for place in ("source/dark", "source/light", "target/deep"):
        for number in range(10 if "source" in place else 1):
            (folders / place / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(MutualignError) as error:
        load(folders)  # a tenth of the source is held out
    assert re.findall(r"^(.+? of \d+) images cannot be read", str(error.value), re.M) == [
        "source: 20 of 40",
        "target: 1 of 10",
    ]
    assert str(error.value).count("hint:") == 1


# Classes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["nothing", "other files", "a broken link"])
def test_a_class_folder_without_an_image_is_refused_by_name(folders, content):
    place = folders / "source" / "dusk"
    if content == "a broken link":
        place.symlink_to("/nowhere/at/all")
    else:
        place.mkdir()
    if content == "other files":
        (place / "a.raw").write_text("x")
    with pytest.raises(MutualignError, match=r'source: no image in the class folder\(s\) "dusk"\n(.|\n)*with a dot'):
        load(folders)
    place.rename(folders / "source" / ".dusk")
    assert load(folders).class_names == ("dark", "light")


def test_a_class_folder_of_the_target_test_without_an_image_is_noted(folders):
    for number in range(5):
        (folders / "test" / "light" / f"{number + 5}.png").unlink()
    task = load(folders, target_test=folders / "test")
    assert 'target test: no image in the class folder(s) "light"' in task.notes


def test_a_class_of_which_no_image_can_be_read_is_refused_by_name(folders):
    for number in range(400):
        write(folders / "source" / "dark" / f"more{number}.png", 5)
    for number in range(3):
        (folders / "source" / "rare").mkdir(exist_ok=True)
        (folders / "source" / "rare" / f"{number}.png").write_bytes(FLOATS)
    with pytest.raises(MutualignError, match=r'source: no image of the class\(es\) "rare" can be read'):
        load(folders, source_test=folders / "test")


def test_classes_that_cannot_be_trained_on_are_errors(folders):
    with pytest.raises(MutualignError, match='only the class "deep"; a classifier needs at least two'):
        FolderTask(folders / "target", folders / "target").load()
    write(folders / "test" / "lihgt" / "a.png")
    with pytest.raises(MutualignError, match='class "lihgt" is not among the source\'s; did you mean "light"'):
        load(folders, target_test=folders / "test")
    write(folders / "source" / "rare" / "a.png")
    with pytest.raises(MutualignError, match='class "rare" has 1 example'):
        load(folders)
    assert load(folders, source_test=folders / "source").class_names == ("dark", "light", "rare")


# Notes ----------------------------------------------------------------------------------------------------------------


def test_copies_are_noted_in_one_part_in_two_classes_and_in_two_parts(folders):
    assert not [note for note in load(folders, target_test=folders / "test").notes if "image(s)" in note]
    source = folders / "source"
    shutil.copy(source / "dark" / "0.png", source / "dark" / "again.png")
    shutil.copy(source / "dark" / "1.png", source / "light" / "clash.png")
    shutil.copy(source / "dark" / "2.png", folders / "test" / "dark" / "leak.png")
    shutil.copy(folders / "target" / "deep" / "3.png", folders / "test" / "light" / "labelled.png")
    notes = "\n".join(load(folders, source_test=folders / "test", target_test=folders / "test").notes)
    assert "source: 2 image(s) are copies of others, such as" in notes
    assert "source: 1 image(s) are in two classes, such as" in notes
    assert 'clash.png, which is "dark" and "light"' in notes
    assert "source test: 1 image(s) are also in source, such as" in notes
    assert "target test: 12 image(s) are also in source test" in notes
    assert "are also in target" not in notes  # a test set may be the labelled part of the target


def test_values_that_do_not_use_their_range_are_noted(folders):
    assert not [note for note in load(folders).notes if "255" in note]
    for number in range(10):
        twelve = np.full((6, 6), 400 * number, np.uint16)  # up to 3600 of 4095, in 16 bits
        (folders / "target" / "deep" / f"{number}.png").write_bytes(encoded(twelve))
    notes = "\n".join(load(folders).notes)
    assert "target: 9 of 10 images have no value above 16 of 255; 12-bit images" in notes
    assert "source and target differ in range: the largest value of a typical image is" in notes
    for number in range(10):
        write(folders / "target" / "deep" / f"{number}.png", number % 2)
    assert "target: 5 of 10 images have only the values 0 and 1 of 255" in "\n".join(load(folders).notes)


# Settings -------------------------------------------------------------------------------------------------------------


def test_the_size_asked_for_is_the_size_of_the_images(folders):
    assert load(folders, image_size=12).shape == (3, 12, 12)
    with pytest.raises(MutualignError, match="image size is from 1 to 1024, got 0"):
        load(folders, image_size=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": 3}, "own_images, source: expected"),
        ({"image_size": "x"}, "own_images, image_size: expected"),
        ({"on_bad_image": "x"}, "own_images, on_bad_image: invalid"),
    ],
)
def test_settings_of_another_type_in_a_config_are_named(folders, change, message):
    plain = FolderTask(folders / "source", folders / "target").to_dict()
    with pytest.raises(MutualignError, match=message):
        parse_typed(plain | change, FolderTask, "own_images")


def test_a_cache_that_cannot_be_written_is_an_error_with_advice(folders, monkeypatch):
    (folders / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders / "file"))
    with pytest.raises(MutualignError, match=r"cannot be kept.*\n  hint: .*XDG_CACHE_HOME"):
        load(folders)


# Training -------------------------------------------------------------------------------------------------------------


def test_images_from_files_train_to_the_weights_of_the_same_images_by_their_tasks_name(tmp_path):
    named = find_task("digits@60").load(tmp_path)
    test = named.target_test.subset(torch.arange(20))
    named = replace(named, source_test=named.source_train, target_test=test)
    tables = {}
    for part, images, labels in (
        ("source", named.source_train.images, named.source_train.labels),
        ("target", named.target_train.images, None),
        ("test", test.images, test.hidden_labels),
    ):
        lines = ["path,label" if labels is not None else "path"]
        for row, pixels in enumerate(images.pixels):
            place = tmp_path / part / f"{row}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.squeeze(-1).numpy()).save(place)
            lines.append(f"{place},{labels[row]}" if labels is not None else str(place))
        tables[part] = tmp_path / f"{part}.csv"
        tables[part].write_text("\n".join(lines), encoding="utf-8")
    own = FolderTask(tables["source"], tables["target"], tables["source"], tables["test"]).load()
    recipe = load_recipe("fast", ["stages.0.epochs=1", "stages.0.batch_size=30", "stages.0.epoch_steps=0"])
    weights = []
    for name, task in (("named", named), ("own", own)):
        experiment = Experiment.start(recipe, task, 0, tmp_path / "runs" / "task" / name / "seed-0")
        experiment.run()
        weights.append(experiment.folder.checkpoints.load_weights(0, "last")[0])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
