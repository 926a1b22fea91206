"""Many runs in processes of their own: the results of one process, and what a fault in a worker costs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mutualign.cli.compare import Compare
from mutualign.io import plugins
from mutualign.runs.spec import RunSpec
from mutualign.runs.status import status_of
from tests.run_contents import contents
from tests.runs.many import PLUGIN, RECIPE, compare, in_this_process, mutualign, run_of


@pytest.fixture(scope="module")
def faults(place):
    """The answer to a comparison in which workers are killed and a method fails."""
    return compare("steady,once,always,broken", "out", "--seeds", "1", "--jobs", "2", "--save", "rows.json")


def test_a_killed_worker_costs_its_run_only_and_a_run_that_kills_twice_is_named_as_missing(faults, place):
    from faulty import attempts

    assert faults.code == 1
    assert "once.toml" not in faults.err
    assert "once on bright, seed 0: its worker was lost: TerminatedWorkerError" in faults.out
    assert "missing: always on bright, seed 0: its worker was lost" in faults.out
    assert "missing: broken on bright, seed 0: RuntimeError: a bug\nin two lines\n  details  out/bright/" in faults.out
    assert f"the same command trains them again: mutualign compare --plugin {PLUGIN}" in faults.out
    counts = {name: len(attempts(name)) for name in ("steady", "once", "always", "broken")}
    assert counts == {"steady": 1, "once": 2, "always": 2, "broken": 1}
    assert len(set(attempts("once"))) == len(set(attempts("always"))) == 2  # each time in a new process
    rows = json.loads(Path("rows.json").read_text())["rows"]
    assert {row["recipe"] for row in rows} == {"steady", "once"}


def test_a_fault_in_a_method_costs_its_run_only_also_where_this_process_trains(place):
    answer = compare("broken,dann", "here", "--seeds", "1", "--save", "here.json")
    assert answer.code == 1, answer
    details = "  details  here/bright/broken/seed-0/failure.txt\n"
    assert f"broken on bright, seed 0: failed: RuntimeError: a bug\nin two lines\n{details}" in answer.out
    assert f"missing: broken on bright, seed 0: RuntimeError: a bug\nin two lines\n{details}" in answer.out
    assert {row["recipe"] for row in json.loads(Path("here.json").read_text())["rows"]} == {"dann"}
    assert "Traceback" in Path("here/bright/broken/seed-0/failure.txt").read_text()


def test_a_recipe_that_a_failed_run_begins_with_is_trained_on_its_own_by_the_same_command(place):
    second = RECIPE.format(method="broken", epochs=3).partition("[[stages]]")[2]
    Path("dann_broken.toml").write_text(f"{RECIPE.format(method='dann', epochs=3)}[[stages]]{second}")
    answer = compare("dann,dann_broken", "contained", "--seeds", "1", "--jobs", "2", "--save", "contained.json")
    assert answer.code == 1, answer
    assert answer.out.count("1 runs to train\n") == 2
    assert answer.out.count("missing: ") == answer.out.count("missing: dann_broken on bright, seed 0") == 1
    assert {row["recipe"] for row in json.loads(Path("contained.json").read_text())["rows"]} == {"dann"}
    assert run_of("contained", "dann").result()


def test_if_every_run_is_missing_no_run_is_recommended_and_nothing_is_said_of_labels(place, monkeypatch):
    monkeypatch.setattr(Compare, "_run_elsewhere", lambda self, *rest: ([], {"broken on bright, seed 0": "a bug"}))
    answer = compare("broken", "nothing", "--jobs", "2")
    assert answer.code == 1
    assert answer.out.startswith("missing: broken on bright, seed 0: a bug\nthe same command trains them again: ")


def test_what_is_trained_is_bit_for_bit_what_one_process_trains(faults, place):
    in_this_process("steady,once", Path("alone"))
    for name in ("steady", "once"):  # also after a kill in the middle of an epoch
        assert contents(run_of("out", name)) == contents(run_of("alone", name))


def test_the_states_of_all_runs_are_listed_with_the_commands_that_continue_them(faults, place):
    states = {name: status_of(run_of("out", name).path) for name in ("steady", "once", "always", "broken")}
    assert {name: one.state for name, one in states.items()} == {
        "steady": "complete",
        "once": "complete",
        "always": "stopped",
        "broken": "failed",
    }
    assert states["always"].detail.startswith("killed: process ")
    assert states["broken"].detail == "RuntimeError: a bug"
    listed = mutualign("runs", "--plugin", PLUGIN, "out")
    assert listed.code == 0
    assert "2 complete" in listed.out
    for name in ("always", "broken"):
        assert f"mutualign run --resume out/bright/{name}/seed-0 --plugin {PLUGIN}\n" in listed.out
    assert "--resume out/bright/once" not in listed.out
    assert mutualign("runs", "--plugin", PLUGIN, "empty").code == 2
    without_plugin = status_of_without_plugin(run_of("out", "steady").path)
    assert (without_plugin.state, without_plugin.can_resume) == ("unreadable", False)


def status_of_without_plugin(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_loaded", [])
        patch.delitem(sys.modules, "faulty")
        return status_of(path)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_comparison_saves_says_how_to_resume_and_ends_as_if_nothing_had_happened(place):
    from faulty import attempts

    def interrupt():
        wait_for(lambda: len(attempts("waiting")) == 2)  # in the second of three epochs
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: list(Path("stopped").glob(".stop-*")))
        (place / "go").touch()

    thread = threading.Thread(target=interrupt)
    thread.start()
    stopped = compare("patient,dann", "stopped", "--seeds", "2", "--jobs", "2")
    thread.join()
    assert stopped.code == 130
    assert "stopped and saved; resume with: mutualign compare" in stopped.err
    assert [path.name for path in Path("stopped").iterdir()] == ["bright"]  # no stop file is left
    first = status_of(run_of("stopped", "patient").path)
    assert first.state == "stopped"
    assert first.epochs == 1
    assert compare("patient,dann", "stopped", "--seeds", "2", "--jobs", "2").code == 0
    in_this_process("patient,dann", Path("unstopped"), seeds=2)
    for name in ("patient", "dann"):
        for seed in (0, 1):
            assert contents(run_of("stopped", name, seed)) == contents(run_of("unstopped", name, seed))
    again = compare("patient,dann", "stopped", "--seeds", "2", "--jobs", "2", "--save", "again.json")
    assert again.out.startswith("0 runs to train\n")
    assert len({(row["recipe"], row["seed"]) for row in json.loads(Path("again.json").read_text())["rows"]}) == 4


def test_a_run_keeps_the_command_that_the_user_typed_and_its_plugin(faults, place):
    config = run_of("out", "steady").config()
    assert config.command.startswith(f"mutualign compare --plugin {PLUGIN} -r steady.toml")
    assert config.plugins == [str(PLUGIN)]
    assert RunSpec(config.recipe, "bright", 0) == config.run_spec


def test_a_study_whose_workers_are_killed_at_random_loses_nothing_and_trains_nothing_twice(place, monkeypatch):
    from faulty import attempts

    (place / "study").mkdir()
    monkeypatch.setenv("FAULTS", str(place / "study"))
    for _ in range(20):
        answer = compare("mortal", "study-out", "--seeds", "6", "--jobs", "2", "--save", "study.json", "--force")
        if not answer.code:
            break
    assert answer.code == 0, answer
    assert len(attempts("kills")) >= 3
    monkeypatch.setenv("SPARED", "1")
    in_this_process("mortal", Path("study-alone"), seeds=6)
    for seed in range(6):
        found, undisturbed = (contents(run_of(out, "mortal", seed)) for out in ("study-out", "study-alone"))
        assert found == undisturbed
        assert [record["epoch"] for record in found["records"]] == [1, 2, 3]
