"""One experiment end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mutualign.data.datasets import TASKS
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import curves, summarise
from mutualign.training.loop import Stopped
from tests.conftest import make_tiny_task

SHORT = ["stages.0.epochs=2", "stages.1.epochs=2", "stages.0.batch_size=20", "stages.1.batch_size=20"]
# so that the tiny task has confident pseudo-labels within a few steps
EAGER = ["stages.1.options.threshold=0.34", "stages.0.learning_rate=1e-2"]
# so that the target accuracy changes from epoch to epoch, and other labels would choose another
FAST = ["stages.0.epochs=4", "stages.0.epoch_steps=0", "stages.0.batch_size=10"]


def run(path: Path, task: Task, seed: int = 0, recipe: str = "mani", **settings) -> dict:
    short = load_recipe(recipe, FAST if recipe == "fast" else SHORT + EAGER)
    return Experiment.start(short, task, seed, path, **settings).run()


def test_a_run_leaves_a_folder_that_tells_everything(tmp_path, tiny_task):
    result = run(tmp_path / "run", tiny_task)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.result() == result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert [(record["stage"], record["epoch"]) for record in folder.metrics()] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert result["data"] == "made in a test"
    assert {"python", "torch", "mutualign", "commit"} <= result["versions"].keys()
    assert {"hardware", "command", "created", "seed"} <= result.keys()
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    kinds = ("last", "selected", "last-outputs", "selected-outputs", "predictions")
    stages = {f"stage-{stage}-{kind}.safetensors" for stage in (0, 1) for kind in kinds}
    assert names == {"last.safetensors", "last-1.safetensors", "review.safetensors"} | stages


def test_the_audit_of_an_epoch_is_recorded_and_survives_a_resume(tmp_path, tiny_task):
    whole = run(tmp_path / "whole", tiny_task)
    records = RunFolder(tmp_path / "whole").metrics()
    assert "drift" not in records[0]["audit"]  # there is no earlier epoch of the stage
    predicted = RunFolder(tmp_path / "whole").load_tensors("stage-1-predictions")[0]["predicted"]
    assert records[-1]["audit"]["drift"] == (predicted[0] != predicted[1]).double().mean()
    assert records[-1]["audit"].keys() >= {"gradients", "reversal", "coverage", "teacher_agreement"}
    assert records[-1]["audit"]["gradients"].keys() == {"class", "domain", "mi"}

    stops = iter(range(1, 100))
    steps = 2 * 3 + 5  # an epoch has three steps: in the second stage, after its second epoch has begun
    recipe = load_recipe("mani", SHORT + EAGER)
    experiment = Experiment.start(recipe, tiny_task, 0, tmp_path / "stopped", should_stop=lambda: next(stops) == steps)
    with pytest.raises(Stopped):
        experiment.run()
    again = Experiment(recipe, tiny_task, 0, RunFolder.open(tmp_path / "stopped")).run()

    def timeless(folder):
        return [record | {"train_seconds": 0} for record in RunFolder(folder).metrics()]

    assert timeless(tmp_path / "stopped") == timeless(tmp_path / "whole")
    assert again["alarms"] == whole["alarms"]


def test_what_is_kept_for_looking_back_is_what_the_kept_weights_give(tmp_path, tiny_task):
    run(tmp_path / "run", tiny_task)
    folder = RunFolder.open(tmp_path / "run")
    outputs, info = folder.load_tensors("stage-1-last-outputs")
    assert info["epoch"] == 2
    assert "target_labels" not in outputs
    last = folder.metrics()[-1]
    right = outputs["target_logits"].argmax(1) == tiny_task.target_test.reveal_labels()
    assert right.double().mean() == last["target_accuracy"]
    source = outputs["source_logits"].argmax(1) == outputs["source_labels"]
    assert source.double().mean() == last["source_accuracy"]
    review, _ = folder.load_tensors("review")
    assert review["confusion"].sum() == len(tiny_task.target_test)
    assert torch.equal(review["target_samples"][0], tiny_task.target_test.images.pixels[0])


@pytest.mark.parametrize("recipe", ["mani", "fast"])
def test_target_labels_do_not_touch_training_or_the_choice_of_the_epoch(tmp_path, recipe):
    truth, noise = (
        run(tmp_path / "truth", make_tiny_task(), recipe=recipe),
        run(tmp_path / "noise", make_tiny_task(target_label_seed=5), recipe=recipe),
    )
    kept = [f"stage-{stage}-{which}" for stage in range(len(truth["stages"])) for which in ("last", "selected")]
    for name in ("last", *kept):
        (a, about_a), (b, about_b) = (RunFolder(tmp_path / d).load_tensors(name) for d in ("truth", "noise"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
        assert about_a.get("epoch") == about_b.get("epoch")

    def unlabelled(result: dict) -> list:
        return [
            {
                name: (chosen["epoch"], chosen["source_accuracy"])
                for name, chosen in stage["selections"].items()
                if name != "oracle"
            }
            for stage in result["stages"]
        ]

    assert unlabelled(truth) == unlabelled(noise)
    last = [result["stages"][-1]["selections"]["last"]["target_accuracy"] for result in (truth, noise)]
    assert last[0] != last[1]  # the labels were really other ones, and evaluation really reads them


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, tiny_task):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, tiny_task, seed)
    a, b, c = (RunFolder(tmp_path / name).load_tensors("last")[0] for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_a_record_without_its_checkpoint_is_trained_again_and_not_told_twice(tmp_path, tiny_task):
    class Killed(Exception):
        pass

    class KillAtEpoch(Observer):
        def epoch(self, record):
            if (record["stage"], record["epoch"]) == (1, 1):
                raise Killed  # the record is written, the checkpoint is not yet

    whole = run(tmp_path / "whole", tiny_task)
    with pytest.raises(Killed):
        run(tmp_path / "killed", tiny_task, display=KillAtEpoch())
    folder = RunFolder(tmp_path / "killed")
    assert [(record["stage"], record["epoch"]) for record in folder.metrics()][-1] == (1, 1)
    config = folder.config()
    again = Experiment(load_recipe("mani", SHORT + EAGER), tiny_task, config["seed"], folder).run()
    assert [(record["stage"], record["epoch"]) for record in folder.metrics()] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [stage["selections"] for stage in again["stages"]] == [stage["selections"] for stage in whole["stages"]]


def test_a_complete_run_gives_its_result_without_training(tmp_path, tiny_task):
    result = run(tmp_path / "run", tiny_task)
    before = (tmp_path / "run" / "checkpoints" / "last.safetensors").stat().st_mtime_ns
    again = Experiment(load_recipe("mani", SHORT + EAGER), tiny_task, 0, RunFolder.open(tmp_path / "run")).run()
    assert again == result
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").stat().st_mtime_ns == before


def test_starting_where_a_run_is_already_is_refused_and_nothing_is_lost(tmp_path, tiny_task):
    result = run(tmp_path / "run", tiny_task)
    with pytest.raises(MutualignError, match="holds a run already"):
        run(tmp_path / "run", tiny_task)
    assert RunFolder.open(tmp_path / "run").result() == result


def test_a_run_does_not_go_on_with_other_data(tmp_path, tiny_task):
    begun = Experiment.start(load_recipe("mani", SHORT), tiny_task, 0, tmp_path / "run")
    other = dataclasses.replace(tiny_task, identity="another draw")
    with pytest.raises(MutualignError, match=r"made in a test(.|\n)*another draw"):
        dataclasses.replace(begun, task=other).run()


def test_a_config_that_lacks_a_key_is_an_error_that_names_it(tmp_path):
    RunFolder.create(tmp_path / "run", {"task": "digits", "seed": 0})
    with pytest.raises(MutualignError, match=r"config\.toml: missing 'recipe'"):
        Experiment.resume(tmp_path / "run", tmp_path)


def test_the_selected_weights_are_those_of_the_epoch_with_the_best_score(tmp_path, tiny_task):
    run(tmp_path / "run", tiny_task)
    folder = RunFolder.open(tmp_path / "run")
    for stage in (0, 1):
        scores = {
            record["epoch"]: record["scores"]["combined"] for record in folder.metrics() if record["stage"] == stage
        }
        _, info = folder.load_tensors(f"stage-{stage}-selected")
        assert info["epoch"] == max(scores, key=scores.__getitem__)


def test_a_summary_names_last_selected_and_oracle_epochs_of_each_stage():
    def record(epoch: int, score: float, target: float) -> dict:
        return {
            "stage": 0,
            "method": "dann",
            "epoch": epoch,
            "train_seconds": 10.0 * epoch,
            "scores": {"v": score},
            "source_accuracy": 0.9,
            "target_accuracy": target,
        }

    (stage,) = summarise([record(1, 0.2, 0.8), record(2, 0.9, 0.6), record(3, 0.5, 0.7)], "v")
    assert (stage["epochs"], stage["train_seconds"]) == (3, 30.0)
    chosen = {name: (value["epoch"], value["target_accuracy"]) for name, value in stage["selections"].items()}
    assert chosen == {"last": (3, 0.7), "validator:v": (2, 0.6), "oracle": (1, 0.8)}


def test_source_only_on_digits_learns_the_source_and_not_the_target(tmp_path):
    task = TASKS["digits"].load(tmp_path)
    result = Experiment.start(load_recipe("source_only", ["stages.0.epochs=4"]), task, 0, tmp_path / "run").run()
    last = result["stages"][0]["selections"]["last"]
    assert last["source_accuracy"] > 0.85
    assert 0.15 < last["target_accuracy"] < last["source_accuracy"] - 0.2


def test_a_slice_of_the_real_files_trains_end_to_end(tmp_path, real_data):
    whole = TASKS["mnist-mnistm"].load(real_data)

    def first(images: TargetDataset, n: int) -> TargetDataset:
        return TargetDataset(UnlabelledImages(images.images.pixels[:n]), images.hidden_labels[:n])

    def first_labelled(images: LabelledImages, n: int) -> LabelledImages:
        return LabelledImages(UnlabelledImages(images.images.pixels[:n]), images.labels[:n])

    task = Task(
        whole.name,
        whole.identity,
        whole.class_names,
        first_labelled(whole.source_train, 2000),
        first_labelled(whole.source_test, 1000),
        first(whole.target_train, 2000),
        first(whole.target_test, 1000),
    )
    short = ["stages.0.epochs=6", "stages.0.batch_size=32", "stages.0.learning_rate=3e-4", "stages.1.epochs=1"]
    recipe = load_recipe("mani", short)
    result = Experiment.start(recipe, task, 0, tmp_path / "run").run()
    last = result["stages"][1]["selections"]["last"]
    assert last["source_accuracy"] > 0.8
    assert last["target_accuracy"] > 0.25  # chance is 0.1
    assert RunFolder.open(tmp_path / "run").metrics()[-1]["pseudo_labels"]["coverage"] > 0


def test_curves_of_no_epochs_are_none():
    assert curves([]) == {}
