"""`run` and `compare`: what they train, print and keep, and what a resume takes."""

from __future__ import annotations

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import pytest

from mutualign import load_run
from mutualign.cli.compare import Compare
from mutualign.cli.console import PlainConsole
from mutualign.cli.options import OwnImagesOptions, flat, given_options
from mutualign.cli.sweep import SweepCommand
from mutualign.cli.train import next_commands
from mutualign.report.html import write_report
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.next_steps import current_verdict
from mutualign.training.loop import Stopped
from tests.cli.conftest import COMPARE, IMAGES, SHORT, save_image
from tests.report.reader import Reader


def test_compare_prints_tables_keeps_rows_and_skips_what_is_done(mutualign, runs, here):
    before = {path: path.stat().st_mtime_ns for path in here.glob("runs/**/*") if path.is_file()}
    code, out, err = mutualign(*COMPARE)
    assert code == 0, err
    for recipe, path in runs.items():
        assert path.parent.name in out
        assert recipe in out
    assert "oracle" in out
    assert "next, for example: mutualign show runs/source-to-target/dann-" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    content = json.loads((here / "rows.json").read_text())
    assert content["command"] == " ".join(["mutualign", *COMPARE])
    assert len(content["rows"]) == 6


def test_compare_prints_the_gain_over_the_fair_baseline_and_none_over_another_run(mutualign, runs, here):
    unfair = mutualign(*COMPARE).out
    assert "gain over" not in unfair
    code, out, err = mutualign(*(part for part in COMPARE[:-2] if part != "--no-baselines"))
    assert code in (0, 3), err
    recipe = RunFolder.open(runs["dann"]).config().recipe
    table = out[out.index("gain over source only") : out.index("points of target accuracy")]
    shown = [line.split()[:3] for line in table.splitlines() if "source_only" in line]
    assert shown == [[recipe.name, recipe.source_only().name, "1"]]


def test_rows_replace_only_what_the_same_command_has_written_unless_forced(mutualign, refused, here):
    other = [*COMPARE[:-2], "--save", "rows.json", "--strict"]
    assert "rows.json exists already" in refused(*other)
    assert mutualign(*other, "--force").code in (0, 3)
    (here / "table.csv").write_text("path,label\ntest/light/0.png,light\ntest/light/1.png,light\n")
    message = refused(*COMPARE[:-2], "--source-test", "table.csv", "--save", "table.csv", "--force")
    assert "it is also an input" in message


def test_without_target_labels_the_table_says_so(mutualign, here):
    code, out, err = mutualign(
        "compare", "--recipes", "source_only", "--seeds", "1", *IMAGES[:4], *SHORT, "--out", "new"
    )
    assert code == 0, err
    verdict = current_verdict(RunFolder.open(next(here.glob("new/*/*/seed-0"))))
    assert f"{verdict.headline} 1" in out
    assert "`mutualign report new/source-to-target` shows the evidence without them" in out
    assert "oracle" not in out


@pytest.mark.slow
def test_images_that_are_left_out_are_named_once_by_a_comparison_and_a_sweep_and_with_each_run(mutualign, here):
    for number in range(100):
        save_image(here / "target" / f"more-{number}.png", 20 + number)
    broken = here / "target" / "<b>[red].png"
    broken.write_text("no image")
    notes = ["target: 1 of 125 images cannot be read and are left out", str(broken.relative_to(here))]
    for jobs in ("1", "2"):  # with 2, the finished runs are looked at by other code
        code, out, err = mutualign(*COMPARE[:-2], "--out", "new", "--jobs", jobs)
        assert code == 0, err
        assert [out.count(note) for note in notes] == [1, 1]
    for run in here.glob("new/*/*/seed-0"):
        shown = mutualign("show", run).out
        assert all(note in " ".join(shown.split()) for note in notes)
        page = Reader(write_report(run, here / "page.html", force=True).read_text())
        assert "images" in page.sections
        assert all(note in page.text for note in notes)
        assert notes[0] in load_run(run).notes
    (here / "space.toml").write_text('recipe = "dann"\n[space]\nprecision = {choices = ["float32", "bf16"]}\n')
    own = OwnImagesOptions(here / "source", here / "target")
    console = PlainConsole(file=StringIO(), width=160)
    SweepCommand(here / "space.toml", own_images=own)._sweep(console, "a command", 1)
    assert [console.file.getvalue().count(note) for note in notes] == [1, 1]


def test_the_next_commands_of_a_run_are_quoted_for_the_shell():
    first, *others = next_commands(Path("my runs/photos/seed-0"))
    assert first == "next:    mutualign predict 'my runs/photos/seed-0' IMAGES --out predictions.csv"
    commands = [f"mutualign {command} 'my runs/photos/seed-0'" for command in ("report", "show", "demo", "export")]
    assert [line.strip() for line in others] == commands


def test_a_folder_that_holds_a_run_is_refused_with_the_quoted_command_to_resume_it(refused, runs, here):
    shutil.move("runs", "my runs")
    again = ["run", "--recipe", "dann", *IMAGES, *SHORT, "--out", "my runs"]
    path = "my runs" / runs["dann"].relative_to("runs")
    assert f"mutualign run --resume '{path}'" in refused(*again)


def test_a_resume_refuses_options_that_cannot_apply_and_names_them(refused, runs):
    resume = ["run", "--resume", runs["dann"]]
    message = refused(*resume, "--recipe", "dann", "--seed", "0", "--set", "stages.0.epochs=3", "--image-size", "8")
    assert "cannot be changed: --image-size, --recipe, --seed, --set" in message
    assert "--backbone" in refused(*resume, "--backbone", "mlp")


def test_a_stopped_run_resumes_where_its_images_have_moved(mutualign, refused, runs, here):
    run = runs["source_only"]
    result = (run / "result.json").read_bytes()
    (run / "result.json").unlink()
    for name in ("source", "target"):
        (here / name).rename(here / f"moved {name}")
    assert f"mutualign run --resume {run} --source NEW --target NEW" in refused("run", "--resume", run)
    code, _, err = mutualign("run", "--resume", run, "--source", "moved source", "--target", "moved target")
    assert code == 0, err
    one, other = json.loads(result), json.loads((run / "result.json").read_bytes())
    assert [one[key] for key in ("task", "stages", "data")] == [other[key] for key in ("task", "stages", "data")]


@pytest.fixture
def stopped(mutualign):
    """Call `run`, whose training is stopped before its first step; gives the command that it prints."""

    def stop(self):
        raise Stopped

    def command(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Experiment, "run", stop)
            code, _, err = mutualign("run", *arguments)
        assert code == 130, err
        return err.partition("resume with: ")[2].rstrip()

    return command


def test_the_command_that_resumes_has_the_options_that_a_run_does_not_keep(stopped, here):
    (here / "my data").mkdir()
    given = ["--data", "my data", "--accelerator", "cpu", "--save-every", "5", "--strict"]
    shown = "--data 'my data' --accelerator cpu --save-every 5.0 --strict"
    started = stopped("--task", "digits@30", "-r", "source_only", "--out", "new", *given)
    assert started == f"mutualign run --resume new/digits@30/source_only/seed-0 {shown}"
    first = stopped("-r", "source_only", *IMAGES, *SHORT, "--out", "new", "--image-size", "8")
    assert re.fullmatch(r"mutualign run --resume new/source-to-target/source_only-\w+/seed-0", first)
    (here / "source").rename(here / "moved source")
    again = stopped(*first.split()[2:], "--source", "moved source", "--keep", "3")
    assert again == f"{first} --source 'moved source' --keep 3"


def test_a_run_finds_its_data_folder_again_unless_it_is_gone(stopped, here, monkeypatch):
    monkeypatch.setenv("MUTUALIGN_DATA", "usual")
    (here / "my data").mkdir()
    for seed, option in enumerate((["--data", "my data"], [])):
        stopped("--task", "digits@30", "-r", "source_only", "--out", "new", "--seed", str(seed), *option)
    kept, usual = (RunFolder(here / "new" / "digits@30" / "source_only" / f"seed-{seed}").config() for seed in (0, 1))
    assert kept.find_data() == here / "my data"
    assert kept.find_data(here) == here
    assert usual.find_data() == Path("usual")
    (here / "my data").rmdir()
    assert kept.find_data() == Path("usual")


def test_options_that_are_given_are_words_of_another_command_and_groups_are_taken_apart():
    own = OwnImagesOptions(Path("my photos"), Path("b"), image_size=32, on_bad_image="fail")
    command = Compare(task=("digits", "stripes"), own_images=own, set=(("a=1", "b=2"), ("c=3",)), strict=True)
    words = given_options(command, "own_images", "set", "strict", "data", "task")
    places = ["--source", "my photos", "--target", "b", "--image-size", "32", "--on-bad-image", "fail"]
    tasks = ["--task", "digits", "--task", "stripes"]
    assert words == [*tasks, *places, "--set", "a=1", "b=2", "--set", "c=3", "--strict"]
    assert flat(command.set) == ("a=1", "b=2", "c=3")


def test_a_resume_on_other_images_is_refused(refused, runs, here):
    run = runs["source_only"]
    (run / "result.json").unlink()
    assert "other data" in refused("run", "--resume", run, "--target", "source/light")
    assert re.search("on the task|images", refused("run", "--resume", run, "--source", "nowhere"))


def test_strict_turns_an_alarm_into_an_exit_status_and_keeps_the_result(mutualign, here):
    unlearnt = ["--set", "backbone=mlp", "stages.0.epochs=1", "stages.0.optim.lr=1e-9"]
    code, out, _ = mutualign("run", "--recipe", "source_only", *IMAGES, *unlearnt, "--strict", "--out", "strict")
    assert code == 3
    assert "\nsource not learnt\n  The source is not learnt, so nothing else can be read: " in out
    assert out.count("labels do not belong to their images") == out.count("alarm: source is not learnt\n") == 1
    assert "alarm: source is not learnt (stage 1, see above)" in out
    (result,) = here.glob("strict/*/*/*/result.json")
    assert RunFolder.open(result.parent).require_result().alarms
    again = ["compare", "--recipes", "source_only", "--seeds", "1", *IMAGES, *unlearnt, "--out", "strict"]
    code, out, _ = mutualign(*again)
    assert code == 0
    assert re.search("alarm: source_only-.* on source-to-target, seed 0: .*source is not learnt", out)
    assert mutualign(*again, "--strict").code == 3


@pytest.mark.parametrize("size", ["0", "100000"])
def test_a_size_that_no_image_should_have(refused, here, size):
    assert f"from 1 to 1024, got {size}" in refused("run", *IMAGES, "--image-size", size)
    assert not (here / "runs" / "source-to-target" / "best").exists()


def test_an_accelerator_that_is_not_there(refused, here):
    command = ["run", "--recipe", "source_only", *IMAGES, *SHORT, "--accelerator", "mps"]
    for more in ([], ["--devices", "2"]):
        message = refused(*command, "--out", f"runs-{len(more)}", *more)
        assert 'cannot train on accelerator "mps"' in message
