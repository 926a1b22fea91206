"""What a recipe trains on: the images of a task, or features of its image files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.loading import default_recipe, load_for_all, load_task, recipe_for
from mutualign.runs.network_choice import NetworkChoice
from tests.data.features.conftest import CountingNetwork
from tests.data.folders.images import write
from tests.runs.many import mutualign
from tests.runs.samples import recipe


def own(folder, side: int = 60) -> FolderTask:
    for name in ("a", "b"):
        for number in range(3):
            write(folder / "source" / name / f"{number}.png", 30 * number, (side + 20, side), mode="RGB")
            write(folder / "target" / f"{name}{number}.png", 30 * number + 5, (side, side + 9), mode="RGB")
    return FolderTask(folder / "source", folder / "target")


def test_a_recipe_on_features_is_refused_for_a_task_without_image_files(tmp_path):
    for name in ("digits", "digits@60"):
        with pytest.raises(MutualignError, match=rf'recipe photos trains .*; the task "{name}" has none\n  hint: '):
            load_task(name, tmp_path, load_recipe("photos"))
    with pytest.raises(MutualignError, match='unknown task "dgits"'):
        load_task("dgits", tmp_path, load_recipe("photos"))


def test_images_or_features_are_loaded_as_the_recipe_says(tmp_path, monkeypatch):
    asked = []

    def extract(scanned, settings, what):
        asked.append((settings.network, settings.views))
        raise MutualignError("stop here")

    monkeypatch.setattr("mutualign.data.folders.readable.extract", extract)
    assert load_task("", tmp_path, recipe("dann"), own(tmp_path)).shape == (3, 60, 60)
    with pytest.raises(MutualignError, match="stop here"):
        load_task("", tmp_path, load_recipe("photos", ["views=2"]), own(tmp_path))
    assert asked == [("efficientnet_lite2", 2)]
    assert load_task("digits@30", tmp_path, recipe("dann")).name == "digits@30"


def test_an_image_size_that_features_would_not_have_is_refused_and_a_run_with_one_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr("mutualign.data.features.extract.feature_network", lambda network: CountingNetwork())
    photos, sized = load_recipe("photos", ["features=efficientnet_lite0"]), replace(own(tmp_path), image_size=32)
    message = r"features of efficientnet_lite0, which takes images of 224 pixels.*\n  hint:    leave --image-size out"
    with pytest.raises(MutualignError, match=message):
        load_task("", tmp_path, photos, sized)
    assert load_task("", tmp_path, recipe("dann"), sized).shape == (3, 32, 32)
    tuned = recipe_for(sized, "photos", (), NetworkChoice("efficientnet_lite0", finetune=True))
    assert load_task("", tmp_path, tuned, sized).shape == (3, 32, 32)
    task = load_task("", tmp_path, photos, own(tmp_path))
    earlier = replace(task, folders=replace(task.folders, image_size=32))  # as runs of earlier versions kept it
    path = Experiment.start(photos, earlier, 0, tmp_path / "runs" / "t" / "photos" / "seed-0").folder.path
    assert Experiment.resume(path).task.identity == task.identity


TUNED = "finetune:efficientnet_lite0"  # trained on images of 224 pixels
COMPARE = "compare --recipes dann.toml,tuned.toml"
TWO_SIZES = [recipe("dann"), recipe("dann", name="tuned", backbone=TUNED)]


def test_recipes_that_train_on_images_of_different_sizes_are_refused_together(tmp_path):
    images = own(tmp_path)
    with pytest.raises(MutualignError, match=r"dann on their own, tuned on 224 pixels\n  hint: .*--image-size"):
        load_for_all("", tmp_path, TWO_SIZES, images)
    assert load_for_all("", tmp_path, TWO_SIZES, replace(images, image_size=32)).shape == (3, 32, 32)
    assert load_for_all("digits@30", tmp_path, TWO_SIZES).name == "digits@30"  # of images of one size, and no files
    with pytest.raises(MutualignError, match=r"tuned on 224 pixels\n  hint: .*--out"):
        load_for_all(f"folder:{tmp_path}:source-target", tmp_path, TWO_SIZES)


@pytest.mark.parametrize("command", [COMPARE, f"{COMPARE} --jobs 2", "sweep space.toml"])
def test_every_command_that_trains_several_recipes_refuses_images_of_different_sizes(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for one in TWO_SIZES:
        Path(f"{one.name}.toml").write_text(tomli_w.dumps(one.to_dict()))
    Path("space.toml").write_text(f'recipe = "dann.toml"\n[space]\nbackbone = {{choices = ["mlp", "{TUNED}"]}}\n')
    images = own(tmp_path)
    answer = mutualign(*command.split(), "--source", images.source, "--target", images.target)
    assert answer.code == 2, answer
    assert "recipes train on images of different sizes: " in answer.err
    assert not list(tmp_path.rglob("config.toml"))


def test_the_default_recipe_is_photos_from_48_pixels_on(tmp_path):
    assert default_recipe(None) == "best"
    for side, name in ((47, "best"), (48, "photos")):
        assert default_recipe(own(tmp_path / str(side), side)) == name
    broken = own(tmp_path / "broken")
    for path in (tmp_path / "broken" / "source").rglob("*.png"):
        path.write_text("no image")
    assert default_recipe(broken) == "best"  # loading says what is wrong
