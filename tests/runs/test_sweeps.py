"""Sweeps: what a space refuses, what a study shares and resumes, what is pruned, and the page of what was found."""

from __future__ import annotations

import math
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mutualign.data.datasets import find_task
from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.folder import RunFolder
from mutualign.runs.jobs import Job, TaskPlace
from mutualign.runs.lock import locked
from mutualign.runs.spec import RunSpec
from mutualign.runs.status import find_runs
from mutualign.runs.sweeps.space import Choices, Range, load_space
from mutualign.runs.sweeps.study import Study
from mutualign.runs.sweeps.sweep import Sweep
from mutualign.runs.sweeps.trial import TrialJob, _Reporter, score_of
from mutualign.runs.work import Circumstances, StopFile
from mutualign.training.loop import Stopped
from tests.report.reader import Reader
from tests.runs.many import PLUGIN, mutualign

LR = "stages.0.optim.lr"
SPACE = f"""
recipe = "dann.toml"
[space]
"{LR}" = {{ low = 1e-4, high = 1e-1, log = true }}
"stages.0.batch_size" = {{ choices = [10, 20] }}
"""
TRIALS = 8
OPTIONS = "--task bright --data 'my data' --accelerator cpu"  # of the command that trains the best trial


def sweep(space: str, trials: int, out: object, *options: str):
    return mutualign("sweep", "--plugin", PLUGIN, space, "-t", "bright", "--trials", trials, "--out", out, *options)


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.study.trials]


@pytest.fixture(scope="module")
def swept(place):
    """The answer to a sweep by two processes, and its folder."""
    Path("space.toml").write_text(SPACE)
    Path("my data").mkdir()
    options = ["--jobs", "2", "--data", "my data", "--accelerator", "cpu"]
    return sweep("space.toml", TRIALS, "sweeps", *options), place / "sweeps" / "bright" / "space"


@pytest.fixture
def folder(swept, tmp_path):
    """A copy of the sweep's folder, to change."""
    shutil.copytree(swept[1], tmp_path / "bright" / "space")
    return tmp_path / "bright" / "space"


# The space ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 3", "it needs a recipe and fields to search\n  hint: "),
        ('recipe = "dann"\n[spice]', 'unknown key "spice"\n  hint: '),
        ('recipe = "dan"\n[space]\n"precision" = {choices = ["float32", "bf16"]}', 'did you mean "dann"'),
        ('recipe = "dann"\n[space]\n"stages.0.optim.ls" = {low = 1, high = 2}', 'optim.ls = 1(.|\n)*unknown key "ls"'),
        ('recipe = "dann"\n[space]\n"stages.0.optim.lr" = 3', "optim.lr: expected low and high, or choices\n  hint: "),
        ('recipe = "dann"\n[space]\nstages.0.optim.lr = {low = 2, high = 1}', "optim.lr(.|\n)*low must be below high"),
        ('recipe = "dann"\n[space]\nstages.0.optim.lr = {low = 0, high = 1, log = true}', "starts above 0"),
        ('recipe = "dann"\n[space]\nstages.0.optim.lr = {low = 1, hihg = 2}', 'optim.lr: unknown key "hihg"'),
        ('recipe = "dann"\n[space]\nstages.0.batch_size = {choices = [8]}', "two different values or more"),
        ('recipe = "dann"\n[space]\nstages.0.batch_size = {low = -2, high = 8}', "batch_size = -2: "),
        (
            'recipe = "photos"\n[space]\nviews = {choices = [4, 1]}',
            r"views = 4: .*other inputs(.|\n)*--set views=4",
        ),
        ("recipe = ", "cannot be read"),
    ],
)
def test_a_space_that_no_trial_could_use_is_refused_with_file_key_and_hint(text, message, tmp_path):
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(MutualignError, match=message) as caught:
        load_space(tmp_path / "space.toml")
    assert f"space {tmp_path}" in str(caught.value) or "did you mean" in str(caught.value)


def test_a_space_reads_quoted_and_nested_keys_alike(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text('recipe = "dann"\n[space]\n"stages.0.batch_size" = {choices = [8, 16]}\n')
    quoted = load_space(path)
    path.write_text('recipe = "dann"\n[space.stages.0]\nbatch_size = {choices = [8, 16]}\n')
    assert load_space(path) == quoted
    assert quoted.parameters == {"stages.0.batch_size": Choices((8, 16))}


@pytest.mark.parametrize(
    ("parameters", "unchanged"),
    [
        ('"stages.0.batch_size" = {choices = [64, 16]}', {"stages.0.batch_size": 64}),
        ('"stages.0.batch_size" = {low = 8, high = 80, step = 8}\nprecision = {choices = ["auto", "float32"]}', ...),
        ('"stages.0.batch_size" = {low = 7, high = 87, step = 8}', None),
        ('"stages.0.batch_size" = {low = 8, high = 63}', None),
        ('"stages.0.optim.lr" = {low = 1e-5, high = 1e-3, log = true}', {LR: 1e-4}),
        ('"stages.0.optim.lr" = {low = 1, high = 3}', None),
        ('"stages.0.optim.lr" = {choices = [0.1, 0.2]}', None),
    ],
)
def test_the_first_trial_is_the_recipe_as_it_is_where_the_space_has_it(parameters, unchanged, tmp_path):
    (tmp_path / "space.toml").write_text(f'recipe = "dann"\n[space]\n{parameters}\n')
    space = load_space(tmp_path / "space.toml")
    expected = {"stages.0.batch_size": 64, "precision": "auto"} if unchanged is ... else unchanged
    assert space.unchanged() == expected
    first, second = (Study(tmp_path).ask(space, 3).params for _ in range(2))
    if expected:
        assert first == expected
        assert space.recipe_with(first).digest == load_recipe("dann").digest
    assert [first.keys(), second.keys()] == [space.parameters.keys()] * 2
    assert len(Study(tmp_path).study.trials) == 2


# The sweep ------------------------------------------------------------------------------------------------------------


def test_the_best_trial_by_the_label_free_score_becomes_a_recipe_that_run_takes(swept):
    answer, folder = swept
    assert answer.code == 0, answer
    study = Study(folder)
    assert len(states(study)) == TRIALS
    assert set(states(study)) <= {"COMPLETE", "PRUNED"}
    best = study.best()
    assert best.values[0] == max(trial.values[0] for trial in study.complete())
    recipe = load_recipe(str(folder / "best.toml"))
    assert recipe.stages[0].optim.lr == best.params[LR]
    assert recipe.stages[0].batch_size == best.params["stages.0.batch_size"]
    run = RunFolder(folder / "runs" / "bright" / best.user_attrs["recipe"] / "seed-0")
    assert score_of(run) == best.values[0]
    assert f"--recipe {Path('sweeps/bright/space/best.toml')} {OPTIONS} --plugin {PLUGIN}\n" in answer.out


def test_the_journal_holds_nothing_of_target_labels(swept):
    assert "accuracy" not in (swept[1] / "journal.log").read_text()


def test_the_page_shows_the_best_trials_what_mattered_and_in_the_end_the_labels(swept):
    page = Reader((swept[1] / "report.html").read_text())
    assert page.sections == ["best", "history", "settings", "labels"]
    assert "had no part in the search" in page.text
    assert f"best.toml {OPTIONS}" in page.text
    assert "Target test labels are read at every epoch" in page.text
    assert "No target label was read" not in page.text


def test_a_finished_sweep_trains_nothing_more_and_a_longer_one_only_what_is_missing(folder, swept):
    runs = find_runs(folder)
    again = sweep("space.toml", TRIALS, folder.parents[1])
    assert again.code == 0, again
    assert find_runs(folder) == runs
    assert sweep("space.toml", TRIALS + 1, folder.parents[1]).code == 0
    assert len(states(Study(folder))) == TRIALS + 1
    assert len(find_runs(folder)) == len(runs) + 1


def test_a_trial_whose_process_died_is_taken_up_and_one_that_is_trained_elsewhere_is_left_alone(folder):
    study, space = Study(folder), load_space(Path("space.toml"))
    died, elsewhere = (study.ask(space, TRIALS + 2).number for _ in range(2))
    place = folder / "trials" / str(elsewhere)
    place.mkdir()
    with locked(place):
        assert sweep("space.toml", TRIALS + 2, folder.parents[1]).code == 0
    states_now = states(Study(folder))
    assert states_now[died] in ("COMPLETE", "PRUNED")
    assert states_now[elsewhere] == "RUNNING"


def test_another_space_or_another_number_of_seeds_in_the_same_folder_is_refused(folder, swept):
    refused = sweep("space.toml", TRIALS, folder.parents[1], "--seeds", "2")
    assert refused.code == 2
    assert "holds a sweep with another seeds" in refused.err
    assert "choose another --out" in refused.err


def test_a_trial_far_below_the_others_is_pruned_and_its_training_ends(folder, swept):
    study, space = Study(folder), load_space(Path("space.toml"))
    while len(study.complete()) < 2 * TRIALS:
        trial = study.ask(space, 100)
        for epoch in (1, 2, 3):
            study.report(trial.number, epoch, 1e3)
        study.finish(trial.number, 1e3)
    assert sweep("space.toml", len(states(study)) + 1, folder.parents[1]).code == 0
    pruned = Study(folder).study.trials[-1]
    assert pruned.state.name == "PRUNED"
    run = RunFolder(folder / "runs" / "bright" / pruned.user_attrs["recipe"] / "seed-0")
    assert len(run.metrics()) == len(pruned.intermediate_values) < 3


def test_trials_with_the_same_settings_train_one_after_the_other(place, tmp_path, monkeypatch):
    spec, here = RunSpec(load_recipe("dann.toml"), "bright", 0), Circumstances(place, tmp_path / "stop", 1)
    identity = find_task("bright").load(place).identity
    job = Job(spec, spec.path(tmp_path), TaskPlace("bright", place, None, identity), "a command", here)
    study = Study(tmp_path)
    study.ask(load_space(Path("space.toml")), 1)
    reporter = _Reporter(study, TrialJob(tmp_path, 0, (job,), here), StopFile(here.stop_file))
    job.path.parent.mkdir(parents=True)
    other = ExitStack()
    other.enter_context(locked(job.path.parent))
    monkeypatch.setattr(time, "sleep", lambda seconds: other.close())  # while this trial waits, the other one ends
    reporter.train(job)
    assert reporter.scores == [score_of(RunFolder.open(job.path))]
    here.stop_file.touch()
    with locked(job.path.parent), pytest.raises(Stopped):
        _Reporter(study, reporter.trial, StopFile(here.stop_file)).train(job)


def test_a_trial_on_feature_vectors_trains_on_them_and_not_on_features_of_its_own(tmp_path):
    np.savez(tmp_path / "source.npz", X=np.ones((4, 3)), y=[0, 0, 1, 1])
    np.save(tmp_path / "target.npy", np.ones((4, 3)))
    own, here = FolderTask(tmp_path / "source.npz", tmp_path / "target.npy"), Circumstances(tmp_path, tmp_path / "s", 1)
    (tmp_path / "space.toml").write_text('recipe = "photos"\n[space]\nstages.0.batch_size = {choices = [8, 16]}\n')
    space, place = load_space(tmp_path / "space.toml"), TaskPlace(own.name, tmp_path, own, "vectors")
    swept = Sweep(Study(tmp_path), space, place, 1, 2, "a command", here)
    trial = swept.study.ask(space, 2)
    assert (swept.recipe(trial).features, swept.recipe(trial).name) == ("", trial.user_attrs["recipe"])
    assert swept.recipe(trial).stages == space.recipe_with(trial.params).stages


def test_settings_with_which_training_fails_cost_their_trial_and_a_sweep_of_them_says_why(swept):
    Path("failing.toml").write_text(SPACE.replace("dann.toml", "broken.toml"))
    failed = sweep("failing.toml", 2, "sweeps")
    assert failed.code == 2
    assert "no trial is complete; RuntimeError: a bug" in failed.err


def test_many_that_ask_at_once_get_different_trials_and_together_no_more_than_asked_for(swept, tmp_path):
    space, most = load_space(Path("space.toml")), 10
    with ThreadPoolExecutor(4) as pool:
        studies = [Study(tmp_path) for _ in range(4)]
        asked = list(pool.map(lambda number: studies[number % 4].ask(space, most), range(14)))
    numbers = [trial.number for trial in asked if trial]
    assert sorted(numbers) == list(range(most))


def test_what_is_drawn_is_in_the_space_and_a_function_of_the_trials_before(tmp_path):
    (tmp_path / "space.toml").write_text('recipe = "dann"\n[space]\nstages.0.batch_size = {low = 8, high = 64}\n')
    space = load_space(tmp_path / "space.toml")
    drawn = []
    for name in "ab":
        (tmp_path / name).mkdir()
        study = Study(tmp_path / name)
        for number in range(14):
            trial = study.ask(space, 14)
            study.finish(number, -abs(math.log2(trial.params["stages.0.batch_size"]) - 4))
        drawn.append([trial.params["stages.0.batch_size"] for trial in study.study.trials])
    assert drawn[0] == drawn[1]
    assert all(isinstance(size, int) and 8 <= size <= 64 for size in drawn[0])
    assert Range(8, 64) == space.parameters["stages.0.batch_size"]


def test_values_that_no_recipe_can_have_together_fail_their_trial_and_not_the_sweep(tmp_path):
    fields = "momentum = {choices = [0.0, 0.9]}\nnesterov = {choices = [false, true]}"
    (tmp_path / "space.toml").write_text(f'recipe = "dann"\n[space.stages.0.optim]\n{fields}\n')
    space = load_space(tmp_path / "space.toml", ["stages.0.optim.name=sgd", "stages.0.optim.momentum=0.9"])
    study = Study(tmp_path)
    while (trial := study.ask(space, 12)) is not None:
        study.finish(trial.number, 0.5)
    for trial in study.study.trials:
        impossible = trial.params == {"stages.0.optim.momentum": 0.0, "stages.0.optim.nesterov": True}
        assert impossible == (trial.state.name == "FAIL") == ("nesterov needs" in trial.user_attrs.get("error", ""))
    assert {"COMPLETE", "FAIL"} == set(states(study))


# Kills and full disks -------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study in a folder with a relative path, and its space."""
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text('recipe = "dann"\n[space]\nstages.0.batch_size = {low = 8, high = 64}\n')
    Path("study").mkdir()
    return Study(Path("study")), load_space(Path("space.toml"))


def test_a_process_that_is_killed_while_it_writes_the_journal_does_not_stop_the_others(small, monkeypatch):
    study, space = small
    study.study._storage._backend._lock.acquire()  # and dies
    seconds = count()
    clock = SimpleNamespace(monotonic=lambda: next(seconds), time=time.time, sleep=lambda seconds: None)
    monkeypatch.setattr("optuna.storages.journal._file.time", clock)
    assert Study(Path("study")).ask(space, 1).number == 0


def test_a_trial_whose_settings_were_being_drawn_when_its_process_was_killed_is_not_trained(small, monkeypatch):
    study, space = small
    with monkeypatch.context() as killing:
        killing.setattr("optuna.trial.Trial.set_user_attr", lambda *attribute: sys.exit(9))
        with pytest.raises(SystemExit):
            study.ask(space, 3)
    again = Study(Path("study"))
    assert again.unfinished() == []
    assert again.ask(space, 3).number == 1
    assert states(again) == ["FAIL", "RUNNING"]
    assert [trial.number for trial in again.unfinished()] == [1]


def test_a_line_of_the_journal_that_a_full_disk_has_cut_off_is_dropped_and_anything_else_named(small):
    study, space = small
    study.ask(space, 3)
    journal = Path("study/journal.log")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"wor')
    again = Study(Path("study"))
    again.finish(0, 0.5)
    assert journal.read_bytes().startswith(whole)
    assert Study(Path("study")).best().values == [0.5]
    journal.write_bytes(b'{"op_code":4,"wor\n' + whole)
    with pytest.raises(MutualignError, match=r"journal.log: not a readable journal: (.|\n)*hint: "):
        Study(Path("study"))
