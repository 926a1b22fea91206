"""`--backbone`, `--weights` and `--finetune`: `compare` keeps what `run` trained with them, and gives a verdict."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mutualign.runs.folder import RunFolder
from mutualign.runs.loading import recipe_for, recipes_for
from mutualign.runs.network_choice import NetworkChoice
from mutualign.runs.next_steps import compare_command, current_verdict
from tests.cli.conftest import IMAGES

SOURCE_AND_TARGET = IMAGES[:4]
LITE0 = ["--backbone", "efficientnet_lite0"]
FEW = ["--set", "precision=float32", "stages.0.epochs=2", "stages.0.epoch_steps=2", "stages.0.batch_size=8"]
LEARNT = ["stages.0.epochs=2", "stages.0.epoch_steps=15", "stages.0.optim.lr=1e-2"]
CHOICES = {
    "backbone": ("dann", ["--backbone", "mlp", "--set", *LEARNT]),
    "frozen": ("photos", [*LITE0, *FEW, "views=1"]),
    "finetune": ("photos", [*LITE0, "--finetune", "--image-size", "32", *FEW]),
}


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("choice", CHOICES)
def test_compare_trains_the_baseline_of_a_run_with_another_network_and_keeps_the_run(mutualign, here, choice):
    recipe, options = CHOICES[choice]
    out = here / "my runs"
    code, shown, err = mutualign("run", "--recipe", recipe, *SOURCE_AND_TARGET, *options, "--out", out)
    assert code == 0, err
    (path,) = out.glob("*/*/seed-0")
    run, before = RunFolder.open(path), stamps(path)
    assert current_verdict(run).compared_with is None
    command = compare_command(run)
    if choice == "backbone":  # the others have not learnt the source yet
        assert "\nnot compared\n  There is no source-only run " in shown
        assert f"\n  {command}\n" in shown
        assert f"\n  {command}\n" in mutualign("report", path, "--label-these", "10").out

    code, shown, err = mutualign(*shlex.split(command)[1:])
    assert code == 0, err
    assert {name: stamp for name, stamp in stamps(path).items() if name in before} == before
    assert current_verdict(run).compared_with == run.config().recipe.source_only().name
    assert "not compared" not in shown

    after = stamps(out)
    same = ["compare", "--recipes", recipe, *SOURCE_AND_TARGET, *options, "--seeds", "1", "--out", out]
    code, _, err = mutualign(*same)
    assert code == 0, err
    assert stamps(out) == after


def test_the_options_of_run_and_compare_give_the_same_recipes(tmp_path, timm):
    weights = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(1)}, weights)
    for names, choice in (
        ("photos,photos_dann", NetworkChoice("efficientnet_lite1")),
        ("photos,photos_dann", NetworkChoice("timm:test_resnet", str(weights))),
        ("photos,photos_dann", NetworkChoice("timm:test_resnet", "pretrained", finetune=True)),
        ("fast,dann", NetworkChoice("timm:test_resnet", str(weights))),
    ):
        changes = ["stages.0.epochs=3"]
        one_by_one = tuple(recipe_for(None, name, changes, choice) for name in names.split(","))
        assert recipes_for(None, names, changes, choice) == one_by_one


def test_a_recipe_that_an_option_does_not_fit_is_refused_as_by_run(refused, here):
    options = [*SOURCE_AND_TARGET, "--finetune", "--out", "new"]
    message = refused("run", "--recipe", "dann", *options)
    assert "--finetune: recipe dann has no pretrained network" in message
    assert refused("compare", "--recipes", "photos,dann", *options) == message
    assert not Path("new").exists()
