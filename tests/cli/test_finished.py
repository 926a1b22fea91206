"""`show`, `select`, `estimate`, `report`, `predict`: the commands that read runs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from mutualign.runs.folder import RunFolder
from mutualign.runs.next_steps import bound_in_words, current_verdict


def test_show_prints_config_curves_and_result_and_how_to_resume_a_stopped_run(mutualign, runs):
    out = mutualign("show", runs["dann"]).out
    for part in ("source-to-target", "lr 0.0001", "target_accuracy", "loss_domain", "oracle (needs labels)"):
        assert part in out
    assert "no source-only run" not in mutualign("show", runs["source_only"]).out  # it is one, whatever its name is
    (runs["dann"] / "result.json").unlink()
    assert f"to continue: mutualign run --resume {runs['dann']}" in mutualign("show", runs["dann"]).out


def test_show_begins_with_the_verdict_and_fits_80_columns(mutualign, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = mutualign("show", runs["dann"]).out
    verdict = current_verdict(RunFolder.open(runs["dann"]))
    assert out.splitlines()[1] == verdict.headline
    assert verdict.sentence in " ".join(out.split())
    assert f"without labels: {bound_in_words(verdict.lower_bound)}; about " in " ".join(out.split())
    long = [line for line in out.splitlines() if len(line) > 80]
    assert all(line.startswith(("  command", "  folder")) or str(runs["dann"]) in line for line in long)


def test_select_ranks_runs_of_the_same_data(mutualign, refused, runs):
    code, out, _ = mutualign("select", *runs.values(), "--validator", "source_accuracy")
    assert code == 0
    assert "by source accuracy, without target labels" in out
    assert 'did you mean "source_accuracy"?' in refused("select", *runs.values(), "--validator", "source_acuracy")
    config = runs["dann"] / "config.toml"
    config.write_text(config.read_text().replace("own images of", "other images of"))
    assert "different data" in refused("select", *runs.values())


@pytest.mark.parametrize(("bound", "words"), [(0.42, "at least 42.0 % right, by a bound"), (0.0, "no lower bound: ")])
def test_estimate_of_one_run_has_the_result_first_in_80_columns(mutualign, runs, monkeypatch, bound, words):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("mutualign.runs.estimates.bound_accuracy", lambda outputs: bound)
    code, out, err = mutualign("estimate", runs["dann"])
    assert code == 0, err
    assert f"\n  {words}" in "\n".join(out.splitlines()[:3])
    assert max(map(len, out.splitlines())) <= 80
    assert "95 % interval" not in out  # only a bound and a few labels have a confidence


def test_show_and_estimate_say_that_bound_and_estimate_contradict_each_other(mutualign, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("mutualign.runs.estimates.bound_accuracy", lambda outputs: 1.01)
    path = runs["dann"] / "result.json"
    result = json.loads(path.read_text())
    result["verdict"] |= {"lower_bound": 0.65, "accuracy": 0.36, "compared_with": "source_only"}
    path.write_text(json.dumps(result))
    for command, decides in (
        ("show", "The target labels decide."),
        ("estimate", f"Labelling 50 images decides: mutualign report {runs['dann']} --label-these 50."),
    ):
        code, out, err = mutualign(command, runs["dann"])
        assert code == 0, err
        assert f"contradict each other: at least one of them is wrong. {decides}" in " ".join(out.split())
    assert f"mutualign report {runs['dann']} --label-these 50" in out  # on one line, to be copied


def test_a_few_labels_written_filled_in_and_read(mutualign, refused, runs):
    code, out, err = mutualign("report", runs["dann"], "--label-these", "10")
    table = runs["dann"] / "label-these" / "labels.csv"
    assert code == 0, err
    assert f"estimate {runs['dann']} --labels" in out
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).parent.parent.name for row in rows] == ["test"] * 10  # the user's own files
    drawn = [row["part"] for row in rows].count("random")
    assert f"{drawn} images drawn at random, for the accuracy" in out
    assert ("on which this run and source only differ" in out) == (drawn < 10)
    assert "have no label" in refused("estimate", runs["dann"], "--labels", table)
    assert "exists already" in refused("report", runs["dann"], "--label-these", "10")
    for option in (["--png", "figures"], ["--with-runs"]):
        assert "leave out --png" in refused("report", runs["dann"], "--label-these", "10", "--force", *option)

    def fill(label):
        with Path("filled.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"label": label(row)} for row in rows)

    fill(lambda row: row["predicted"])
    code, out, err = mutualign("estimate", runs["dann"], "--labels", "filled.csv")
    assert code == 0, err
    assert f"100.0 % right, {100 * 0.025 ** (1 / drawn):.1f} % to 100.0 %" in " ".join(out.split())
    checkpoints = RunFolder.open(runs["dann"]).checkpoints
    outputs, info = checkpoints.load("stage-0-last-outputs")
    checkpoints.save("stage-0-last-outputs", outputs | {"target_logits": -outputs["target_logits"]}, info)
    last = mutualign("estimate", runs["dann"], "--labels", "filled.csv", "--epoch", "last")
    assert "\n  0.0 % right, 0.0 % to " in last.out
    Path("twice.csv").write_text(Path("filled.csv").read_text() + Path("filled.csv").read_text().splitlines()[1])
    assert "is there twice" in refused("estimate", runs["dann"], "--labels", "twice.csv")
    fill(lambda row: "other")
    assert "0.0 % right" in mutualign("estimate", runs["dann"], "--labels", "filled.csv").out
    fill(lambda row: "a class that is none")
    assert "is not among the source's" in refused("estimate", runs["dann"], "--labels", "filled.csv")
    Path("filled.csv").write_text(table.read_text().replace(rows[0]["images"], "0" * 8))
    assert "labels of other images" in refused("estimate", runs["dann"], "--labels", "filled.csv")


def test_report_replaces_an_older_one_only_by_force_and_never_what_is_the_runs(mutualign, refused, runs):
    run = runs["dann"]
    config = (run / "config.toml").read_bytes()
    Path("page.html").write_text("old")
    assert "page.html exists already" in refused("report", run, "--out", "page.html")
    code, out, _ = mutualign("report", run, "--out", "page.html", "--force")
    assert code == 0
    assert out.startswith("page.html (")
    assert "source-to-target" in Path("page.html").read_text(encoding="utf-8")
    for out, why in ((run / "config.toml", "belongs to a run"), (os.devnull, "not a regular file")):
        assert why in refused("report", run, "--out", out, "--force")
    assert (run / "config.toml").read_bytes() == config


# Predictions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_predictions_of_a_folder_name_each_image_and_what_is_left_out(mutualign, runs, here, kind):
    (here / "target" / "broken.png").write_bytes(b"not an image")
    (here / "target" / "notes.txt").write_text("not an image by its name")
    code, out, err = mutualign("predict", runs["dann"], "target", "--out", f"found.{kind}")
    assert code == 0, err
    assert "skipped: 1 other file(s): 1 .txt" in out
    assert "24 images; 1 of 25 cannot be read and are left out" in out
    assert "left out: target/broken.png" in out
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found = parquet.read_table(f"found.{kind}").to_pylist()
    else:
        with (here / f"found.{kind}").open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file)) if kind == "csv" else json.load(file)
    assert [one["path"] for one in found] == sorted(f"target/{path.name}" for path in here.glob("target/*-*.png"))
    assert {one["label"] for one in found} <= {"[red]", "light"}


def test_a_single_image_is_answered_on_the_terminal_with_its_class_as_it_is(mutualign, runs):
    weights = runs["source_only"] / "checkpoints" / "stage-0-selected.safetensors"
    tensors, info = RunFolder.open(runs["source_only"]).checkpoints.load(weights.stem)
    tensors["head.bias"] += torch.tensor([1e3, 0.0])  # of the classes in the order of their names
    RunFolder(runs["source_only"]).checkpoints.save(weights.stem, tensors, info)
    code, out, _ = mutualign("predict", runs["source_only"], "test/light/0.png")
    assert code == 0
    assert out == "test/light/0.png  [red]  probability 1.0000  entropy 0.0000\n"


def test_predictions_never_replace_their_input_and_others_only_by_force(mutualign, refused, runs, here):
    table = here / "in.csv"
    table.write_text("path\ntarget/li-0.png\n")
    for more in ([], ["--force"]):
        assert "in.csv: cannot be written: it is also an input" in refused(
            "predict", runs["dann"], "in.csv", "--out", "in.csv", *more
        )
    assert table.read_text() == "path\ntarget/li-0.png\n"
    (here / "old.csv").write_text("old")
    command = ["predict", runs["dann"], "in.csv", "--out", "old.csv"]
    assert "old.csv exists already" in refused(*command)
    assert mutualign(*command, "--force").code == 0
    assert "target/li-0.png," in (here / "old.csv").read_text()
    assert "belongs to a run" in refused(
        "predict", runs["dann"], "in.csv", "--out", runs["dann"] / "checkpoints" / "x.csv"
    )


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_predictions_that_cannot_be_written_are_refused_before_the_first_image_is_read(
    refused, runs, here, kind, monkeypatch
):
    monkeypatch.setattr("mutualign.runs.predictor.Predictor.load", lambda *_: pytest.fail("began"))
    (here / f"folder.{kind}").mkdir()
    for out in (f"in.csv/found.{kind}", f"folder.{kind}"):
        (here / "in.csv").write_text("path\n")
        assert "cannot be written" in refused("predict", runs["dann"], "target", "--out", out)
    assert "must end in one of" in refused("predict", runs["dann"], "target", "--out", "found.txt")


@pytest.mark.parametrize(
    ("images", "what", "hint"),
    [
        ("absent.png", "no such image, folder or table", "check the path"),
        ("notes.txt", "neither an image nor a table by its name", "give an image ("),
        ("target", "more than one image", "--out predictions.csv"),
        ("bad", "none of 2 image(s) can be read", "repair them"),
        ("bad/0.png", "bad/0.png: not a readable image", "repair them"),
        ("empty", "no images in it", "put images there"),
    ],
)
def test_nothing_to_predict(refused, runs, here, images, what, hint):
    (here / "notes.txt").write_text("x")
    (here / "empty").mkdir()
    (here / "bad").mkdir()
    for number in range(2):
        (here / "bad" / f"{number}.png").write_bytes(b"not an image")
    out = ["--out", "found.csv"] if images in ("bad", "empty") else []
    message = refused("predict", runs["dann"], images, *out)
    assert what in message
    assert hint in message
    assert not (here / "found.csv").exists()


# Runs that cannot be used ---------------------------------------------------------------------------------------------

USES = {
    "predict": ["predict", "RUN", "target", "--out", "found.csv"],
    "export": ["export", "RUN", "--format", "safetensors"],
    "demo": ["demo", "RUN"],
    "report": ["report", "RUN"],
    "resume": ["run", "--resume", "RUN"],
    "show": ["show", "RUN"],
    "select": ["select", "RUN"],
    "estimate": ["estimate", "RUN"],
}


@pytest.mark.parametrize("use", USES)
def test_a_run_folder_of_a_newer_version_a_stopped_run_and_damaged_weights(refused, runs, use):
    run = runs["dann"]
    command = [run if word == "RUN" else word for word in USES[use]]
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("format = 2", "format = 99"))
    assert "run-folder format 99" in refused(*command)
    (run / "config.toml").write_text(config)
    if use in ("predict", "export", "demo"):
        weights = run / "checkpoints" / "stage-0-selected.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:1000])
        message = refused(*command)
        assert "stage-0-selected.safetensors: not a readable checkpoint" in message
        assert message.endswith("or train the run again in another folder\n")
        weights.write_bytes(whole)
    if use in ("predict", "export", "demo", "report"):
        (run / "result.json").unlink()
        message = refused(*command)
        assert "is not complete" in message
        assert f"mutualign run --resume {run}" in message


def test_stopped_runs_of_a_sweep_are_left_to_the_sweep(mutualign, runs):
    for run in runs.values():
        (run / "result.json").unlink()
    assert mutualign("runs").out.count("mutualign run --resume runs/") == 2
    study = Path("sweeps/task/space")
    study.mkdir(parents=True)
    Path("runs").rename(study / "runs")
    (study / "journal.log").touch()
    for folder in ("sweeps", study / runs["dann"]):
        out = mutualign("runs", folder).out
        assert out.count("the command that started it continues") == 1
        assert "--resume" not in out
