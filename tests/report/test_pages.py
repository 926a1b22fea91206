"""What a report says of complete runs, of runs without labels, and of runs that went wrong or are not finished."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.report.html import write_report
from mutualign.report.page import slug
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.next_steps import current_verdict
from tests.report.conftest import edit_json, one_class_task, train, without_labels
from tests.report.reader import Reader
from tests.tiny_task import make_tiny_task

UNLABELLED = ["alarms", "predictions", "embedding", "curves", "audit", "config", "environment"]
EVIL = "<script>alert(1)</script>"


def read(path, tmp_path) -> Reader:
    return Reader(write_report(path, tmp_path / "page.html", force=True).read_text())


@pytest.fixture(scope="session")
def opened(pages):
    return {name: Reader(path.read_text()) for name, path in pages.items()}


@pytest.fixture
def run(labelled, tmp_path):
    """A copy of the mani run, to change."""
    return shutil.copytree(labelled / "tiny" / "mani" / "seed-0", tmp_path / "tiny" / "mani" / "seed-0")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, but not drawn: for pages of which only the text is looked at."""
    monkeypatch.setattr("mutualign.report.page.to_svg", lambda figure, name, label: "<svg></svg>")


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_page_has_every_section_and_the_numbers_of_the_result(opened, labelled):
    page, result = opened["run"], RunFolder.open(labelled / "tiny" / "mani" / "seed-0").require_result()
    assert page.sections == [*UNLABELLED[:2], "confusion", "reliability", *UNLABELLED[2:]]
    stage, stages = result.stages[-1], page.table_with("epoch chosen by")
    assert page.column(stages, "target accuracy")["2: mani"] == f"{100 * stage.oracle.target_accuracy:.1f} %"
    assert f"mani classifies {100 * stage.selected.target_accuracy:.1f} % of the target test images right" in page.text
    assert all(alarm.seen in page.text for alarm in result.alarms)
    assert result.versions["torch"] in page.text
    assert f"Made by mutualign {version('mutualign')} from run folders" in page.text
    assert "Target labels are read at every epoch" in page.text


def test_a_run_page_without_target_labels_begins_with_verdict_bound_estimate_and_what_to_do(opened, unlabelled):
    page, run = opened["unlabelled run"], RunFolder.open(unlabelled / "tiny" / "dann" / "seed-0")
    assert page.sections == UNLABELLED
    verdict, top = current_verdict(run), page.text[: page.text.index("No evidence without target labels")]
    assert f" {verdict.headline} {verdict.sentence}" in top
    assert f"≥ {100 * verdict.lower_bound:.0f} %" in top
    assert f"~ {100 * verdict.accuracy:.0f} %" in top
    assert f"mutualign report {run.path} --label-these 50" in top
    for word in ("unknown", "oracle", "needs labels", "target accuracy"):
        assert word not in page.text.replace("low target accuracy", "")  # an alarm's name


def test_a_verdict_without_a_baseline_says_how_to_get_one_and_is_made_again_once_there_is(undrawn, one_class, tmp_path):
    alone = shutil.copytree(one_class.parents[1], tmp_path / "tiny") / "dann" / "seed-0"
    unchecked = "Negative transfer was not checked"
    page = read(alone, tmp_path).text
    assert "Train the source-only run of the same network and epochs" in page
    assert unchecked in page
    folder = RunFolder.open(alone)
    recipe, task = folder.config().recipe.source_only(), one_class_task()
    Experiment.start(recipe, task, 0, alone.parents[1] / recipe.name / "seed-0").run()
    assert current_verdict(folder).compared_with == recipe.name
    assert folder.require_result().verdict.compared_with is None
    page = read(alone, tmp_path).text
    assert "Train the source-only run" not in page
    assert unchecked not in page


def test_only_an_adapted_run_asks_for_a_source_only_run_whatever_the_recipes_are_called(
    undrawn, unlabelled, one_class, tmp_path
):
    asked = "Negative transfer was not checked"
    assert asked in read(one_class, tmp_path).text
    assert asked not in read(unlabelled / "tiny" / "baseline" / "seed-0", tmp_path).text
    assert asked not in read(unlabelled / "tiny" / "dann" / "seed-0", tmp_path).text


def test_one_class_predicted_in_one_epoch_makes_a_page(one_class, tmp_path):
    page = read(one_class, tmp_path)
    audit = RunFolder.open(one_class).metrics()[-1].audit
    assert max(audit.predicted_shares) == 1
    assert page.sections == UNLABELLED
    assert page.column(page.table_with("stable under augmentation"), "epoch") == {"1: dann": "1"}


def test_a_run_of_an_early_version_makes_a_page_and_a_stopped_one_says_how_to_resume(undrawn, early, tmp_path):
    for complete in sorted(early.glob("*/complete")):
        result = RunFolder.open(complete).require_result()
        page = read(complete, tmp_path)
        stages = page.tables[page.table_with("epoch chosen by")]
        assert stages[1][-1] == f"{result.stages[0].train_seconds:.0f}"
        assert "config" in page.sections
    stopped = next(early.glob("*/stopped"))
    with pytest.raises(MutualignError, match=f"not complete\n.*mutualign run --resume {stopped}"):
        write_report(stopped, tmp_path / "stopped.html")
    assert len(read(early, tmp_path).column(-1, "reason")) == len(list(early.glob("*/stopped")))


def test_a_run_whose_outputs_were_deleted_makes_a_page(run, labelled, tmp_path):
    for name in ("review", "stage-1-selected-outputs"):
        (run / "checkpoints" / f"{name}.safetensors").unlink()
    page = read(run, tmp_path)
    assert page.sections == ["alarms", "curves", "audit", "config", "environment"]
    together = shutil.copytree(labelled / "tiny" / "source_only", tmp_path / "tiny" / "source_only").parents[1]
    assert set(read(together, tmp_path).text.split()) >= {"mani", "source_only"}


def test_a_page_names_classes_and_never_numbers_them(labelled, opened):
    result = RunFolder.open(labelled / "tiny" / "mani" / "seed-0").require_result()
    assert result.class_names == ["left", "middle", "right"]
    confusions = opened["run"].tables[opened["run"].table_with("predicted")]
    assert {cell for row in confusions[1:] for cell in row[:2]} <= set(result.class_names)
    assert re.search(r"(left|middle|right) → (left|middle|right), \d+ %", opened["run"].text)
    assert not re.search(r"class \d", opened["run"].text)


# Comparisons ----------------------------------------------------------------------------------------------------------


def test_a_comparison_without_target_labels_is_ranked_by_score_with_estimates_and_alarms(opened, unlabelled):
    page = opened["unlabelled comparison"]
    scores = {name: float(score) for name, score in page.column(0, "label-free score").items()}
    expected = {name: [] for name in ("baseline", "dann")}
    for path in unlabelled.rglob("config.toml"):
        run = RunFolder.open(path.parent)
        expected[run.config().recipe.name].append(max(record.scores["combined"] for record in run.metrics()))
    assert scores == pytest.approx({name: sum(found) / 2 for name, found in expected.items()}, abs=6e-4)
    assert list(scores) == sorted(scores, key=scores.__getitem__, reverse=True)
    best = next(iter(scores))
    assert f"{best} ranks first by the label-free score (combined, n = 2)" in page.text.replace("\xa0", " ")
    assert all(0 <= float(value) <= 100 for value in page.column(0, "estimate").values())
    assert set(page.column(page.table_with("estimator"), "estimator").values()) == {"consensus"}
    assert page.column(0, "verdict")["baseline"] == "baseline"
    alarms = {
        alarm.seen for path in unlabelled.rglob("config.toml") for alarm in RunFolder(path.parent).result().alarms
    }
    assert alarms
    assert all(alarm in page.text for alarm in alarms)
    for word in ("unknown", "oracle", "needs labels", "95 % interval of"):
        assert word not in page.text


def test_a_comparison_with_target_labels_is_ranked_by_them_and_names_what_is_left_out(opened, labelled):
    page = opened["comparison"]
    accuracy = {name: float(value) for name, value in page.column(1, "last epoch").items()}
    expected = {
        name: RunFolder.open(labelled / "tiny" / name / "seed-0").require_result().stages[-1].last.target_accuracy
        for name in ("source_only", "fair", "mani")
    }
    assert accuracy == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=0.06)
    assert list(accuracy.values()) == sorted(accuracy.values(), reverse=True)
    gain = 100 * (expected["mani"] - expected["fair"])
    assert page.column(2, "over") == {"mani": "fair"}
    assert float(page.column(2, "last epoch")["mani"]) == pytest.approx(gain, abs=0.06)
    assert page.column(-1, "reason") == {"tiny/dann/seed-0": "not complete"}
    assert page.sections == ["tiny", "left-out"]


ACCURACY = {"source_only": 0.3, "fair": 0.4, "mani": 0.6}


@pytest.mark.parametrize(
    ("accuracy", "kind", "step", "other_step"),
    [
        ({}, "helped", "writes the network to a file", "instead"),
        ({"fair": 0.9}, "made it worse", "Use the source-only run fair instead", "Compare an adapted run"),
        ({"source_only": 0.9}, "helped", "Use source_only instead: without adaptation", "writes the network"),
    ],
)
def test_gains_are_over_the_fair_baseline_and_the_best_adapted_system_is_judged(
    undrawn, labelled, tmp_path, accuracy, kind, step, other_step
):
    runs, accuracy = shutil.copytree(labelled, tmp_path / "runs") / "tiny", ACCURACY | accuracy
    for name, value in accuracy.items():
        edit_result(runs / name / "seed-0", value)
    edit_result(runs / "mani" / "seed-0", accuracy["mani"], kind=kind, true_accuracy=0.6)
    page = read(runs, tmp_path)
    gains = page.table_with("over")
    assert page.column(gains, "over") == {"mani": "fair"}
    assert page.column(gains, "last epoch") == {"mani": f"{100 * (0.6 - accuracy['fair']):+.1f}"}
    assert f" mani: {kind} " in page.text
    assert step in page.text
    assert other_step not in page.text
    assert ("Of the adapted systems, mani ranks first." in page.text) == (max(accuracy.values()) > 0.6)


def edit_result(run: Path, target_accuracy: float | None = None, **verdict: object) -> None:
    """Change the target accuracy and the verdict of a complete run."""
    result = json.loads((run / "result.json").read_text())
    for chosen in result["stages"][-1]["selections"]:
        chosen["target_accuracy"] = target_accuracy
    edit_json(run / "result.json", stages=result["stages"], verdict=result["verdict"] | verdict)


def test_next_steps_after_seeds_that_disagree_are_those_of_a_verdict_that_cannot_tell(undrawn, unlabelled, tmp_path):
    runs = shutil.copytree(unlabelled, tmp_path / "runs") / "tiny"
    for seed, kind in enumerate(("no difference", "made it worse")):
        edit_result(runs / "dann" / f"seed-{seed}", kind=kind)
    text = read(runs, tmp_path).text
    assert " dann: cannot tell " in text
    assert "does as well" not in text
    assert "--label-these 50 chooses them" in text


def test_a_page_does_not_call_a_bound_of_nothing_a_result(undrawn, unlabelled, tmp_path):
    runs = shutil.copytree(unlabelled, tmp_path / "runs") / "tiny"
    run = runs / "dann" / "seed-0"
    for bound, words in ((0.3, "at least 30 %, about 36 % by an estimate"), (0.0, "about 36 % by an estimate")):
        edit_result(run, lower_bound=bound, accuracy=0.36)
        assert f"and of the target images {words}" in read(run, tmp_path).text


def test_a_page_says_that_bound_and_estimate_contradict_each_other(undrawn, unlabelled, tmp_path):
    runs = shutil.copytree(unlabelled, tmp_path / "runs") / "tiny"
    said = "The lower bound and the estimate contradict each other: at least one of them is wrong. Labelling 50 images"
    run = runs / "dann" / "seed-0"
    for bound, contradicts in ((0.3, False), (1.01, True)):
        for seed in (0, 1):
            edit_result(runs / "dann" / f"seed-{seed}", lower_bound=bound, accuracy=0.36)
        alone, together = (read(path, tmp_path).text for path in (run, runs))
        assert (f"about 36 % by an estimate. {said} decides: mutualign report {run}" in alone) == contradicts
        assert ("average thresholded confidence), contradicts the bound" in alone) == contradicts
        assert (f"dann: {said}" in together) == contradicts


def test_a_comparison_computes_no_bound_again(undrawn, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr("mutualign.runs.estimates.bound_accuracy", lambda outputs: pytest.fail("a bound was computed"))
    page = read(labelled, tmp_path)
    assert page.column(0, "estimate").keys() == ACCURACY.keys()


def test_runs_on_other_images_under_the_same_task_name_are_not_mixed(undrawn, labelled, tmp_path):
    runs = shutil.copytree(labelled, tmp_path / "runs")
    task = make_tiny_task()
    small = without_labels(
        replace(
            task,
            source_train=LabelledImages(smaller(task.source_train.images), task.source_train.labels),
            source_test=LabelledImages(smaller(task.source_test.images), task.source_test.labels),
            target_train=TargetDataset(smaller(task.target_train.images), None),
            target_test=TargetDataset(smaller(task.target_test.images), None),
        )
    )
    train(small, runs / "small" / "source_only" / "seed-0")
    page = read(runs, tmp_path)
    assert page.sections == ["tiny-data-1-of-2", "tiny-data-2-of-2", "left-out"]
    assert [len(table) for table in page.tables[:2]] == [2, 2]  # a head, and source only on the small images
    assert "no source-only run" not in page.text


def smaller(images: UnlabelledImages) -> UnlabelledImages:
    return UnlabelledImages(images.pixels[:, 1:11, 1:11].contiguous())


def test_recipes_with_one_name_and_other_settings_are_two_systems_and_a_copy_counts_once(undrawn, unlabelled, tmp_path):
    runs = shutil.copytree(unlabelled, tmp_path / "runs")
    shutil.copytree(runs / "tiny" / "dann" / "seed-0", runs / "zcopy" / "seed-0")
    train(without_labels(make_tiny_task()), runs / "more" / "dann" / "seed-0", "dann", epochs=1)
    page = read(runs, tmp_path)
    systems = page.column(0, "n")
    names = sorted(re.sub(r"\(.{8}\)", "(digest)", name) for name in systems)
    assert names == ["baseline", "dann (digest)", "dann (digest)"]
    assert sorted(systems.values()) == ["1", "2", "2"]
    assert page.column(-1, "reason") == {"zcopy/seed-0": "same recipe, data and seed as tiny/dann/seed-0"}


def test_a_comparison_shows_what_systems_answer_for_the_same_images_and_links_the_pages_of_its_runs(
    undrawn, labelled, tmp_path
):
    runs = shutil.copytree(labelled, tmp_path / "my runs")
    folders = [runs / "tiny" / name / "seed-0" for name in ("mani", "source_only")]
    damaged = shutil.copytree(folders[0], runs / "damaged" / "seed-0")
    (damaged / "metrics.jsonl").write_text("no record\n")
    page = Reader(write_report(runs, tmp_path / "page.html", runs=True).read_text())
    assert "not JSON" in page.column(-1, "reason")["damaged/seed-0"]
    assert not (damaged / "report.html").exists()
    for folder in folders:
        assert f"my%20runs/tiny/{folder.parent.name}/seed-0/report.html" in page.addresses
        assert (folder / "report.html").is_file()
    names, label = (
        ["left", "middle", "right"],
        int(RunFolder.open(folders[0]).checkpoints.load("review")[0]["labels"][0]),
    )
    for stage, folder in zip((1, 0), folders, strict=True):
        outputs, _ = RunFolder.open(folder).checkpoints.load_outputs(stage, "selected")
        answer = int(outputs["target_logits"][0].argmax())
        assert f"{folder.parent.name}: {names[answer]} {'✓' if answer == label else '✗'}" in page.text
    assert f"true class: {names[label]}" in page.text


@pytest.mark.parametrize("damaged", ["review", "stage-0-selected-outputs"])
def test_a_run_with_a_damaged_file_is_left_out_of_a_comparison_and_named(undrawn, labelled, tmp_path, damaged):
    runs = shutil.copytree(labelled, tmp_path / "runs")
    (runs / "tiny" / "source_only" / "seed-0" / "checkpoints" / f"{damaged}.safetensors").write_bytes(b"no tensors")
    page = Reader(write_report(runs).read_text())
    assert damaged in page.column(-1, "reason")["tiny/source_only/seed-0"]
    assert set(page.column(0, "n")) == {"fair", "mani"}


def test_a_folder_without_a_complete_run_says_what_to_do(labelled, tmp_path):
    with pytest.raises(MutualignError, match=r"not complete\n  hint:    `mutualign runs .*dann` lists them"):
        write_report(labelled / "tiny" / "dann")
    with pytest.raises(MutualignError, match="no folder below it is one\n  hint: "):
        write_report(tmp_path)
    with pytest.raises(MutualignError, match="no such folder"):
        write_report(tmp_path / "nothing")
    (tmp_path / "config.toml").write_text("format = ")
    with pytest.raises(MutualignError, match=r"config\.toml: cannot be read"):
        write_report(tmp_path)


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["run", "unlabelled comparison"])
def test_a_page_needs_no_network_is_small_and_has_unique_ids(opened, pages, kind):
    page = opened[kind]
    assert pages[kind].stat().st_size < 5e6
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert {"script", "link"}.isdisjoint(page.tags)
    assert "default-src 'none'" in pages[kind].read_text()


def test_names_are_escaped_everywhere(run, tmp_path):
    edit_json(run / "result.json", class_names=[EVIL, "$x$", "a&b"], command=f"mutualign run {EVIL}", task=EVIL)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('task = "tiny"', f"task = '{EVIL}'"))
    for folder in (run, run.parent):
        text = write_report(folder, tmp_path / "evil.html", force=True).read_text()
        assert EVIL not in text
        assert "&lt;script&gt;alert(1)" in text
        assert "script" not in Reader(text).tags
    assert "$x$" in write_report(run).read_text()  # not typeset as mathematics


def test_a_report_is_deterministic_and_replaces_only_an_older_report_without_force(run, labelled, pages, tmp_path):
    expected = pages["run"].read_bytes().replace(bytes(labelled), bytes(tmp_path))  # in the commands to run next
    assert write_report(run).read_bytes() == expected
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    with pytest.raises(MutualignError, match="--force"):
        write_report(run, notes)
    with pytest.raises(MutualignError, match="belongs to a run"):
        write_report(run, run / "result.json", force=True)
    assert notes.read_text() == "mine"


def test_figures_and_galleries_are_written_as_png_for_papers(run, tmp_path):
    write_report(run, png=tmp_path / "png")
    names = {path.stem for path in (tmp_path / "png").iterdir()}
    assert names >= {"accuracy-by-epoch", "embedding-class", "confusion", "reliability", "source-samples"}
    with Image.open(tmp_path / "png" / "accuracy-by-epoch.png") as image:
        assert round(image.info["dpi"][0]) == 300
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_an_anchor_has_letters_digits_and_dashes_only():
    assert slug("mnist-mnistm@6000") == "mnist-mnistm-6000"
    assert slug("<é>") == "x"
