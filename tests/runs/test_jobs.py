"""Many runs in processes of their own: the results of one process, and what a fault in a worker costs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from mutualign.data.datasets import TASKS, find_task
from mutualign.io import plugins
from mutualign.methods import METHODS
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import Comparison
from mutualign.runs.folder import RunFolder
from mutualign.runs.spec import RunSpec
from mutualign.runs.status import count_epochs, status_of
from tests.cli.conftest import call
from tests.run_contents import contents

PLUGIN = Path(__file__).with_name("faulty.py")
RECIPE = """
backbone = "mlp"
precision = "float32"
[[stages]]
method = "{method}"
epochs = {epochs}
batch_size = 20
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def mutualign(*arguments: object) -> Answer:
    """Call the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return Answer(call(*map(str, arguments)), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe per faulty method, in which the plugin is loaded; it is the current folder."""
    folder = tmp_path_factory.mktemp("jobs")
    for method, epochs in {"steady": 3, "once": 3, "always": 3, "broken": 3, "patient": 400, "dann": 3}.items():
        (folder / f"{method}.toml").write_text(RECIPE.format(method=method, epochs=epochs))
    registries = [(METHODS, dict(METHODS)), (TASKS, dict(TASKS))]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FAULTS", str(folder))
        patch.setenv("COLUMNS", "160")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(plugins, "_loaded", [])
        patch.setattr(sys, "path", list(sys.path))
        plugins.load_plugin(str(PLUGIN))
        yield folder
    for registry, before in registries:
        registry.clear()
        registry.update(before)
    del sys.modules["faulty"]


def compare(recipes: str, out: str, *options: str) -> Answer:
    names = ",".join(f"{name}.toml" for name in recipes.split(","))
    return mutualign(
        "compare", "--plugin", PLUGIN, "-r", names, "-t", "bright", "--out", out, "--no-baselines", *options
    )


def run_of(out: str, recipe: str, seed: int = 0) -> RunFolder:
    return RunFolder(Path(out) / "bright" / recipe / f"seed-{seed}")


def in_this_process(recipes: str, out: Path, seeds: int = 1) -> None:
    loaded = tuple(load_recipe(f"{name}.toml") for name in recipes.split(","))
    Comparison(loaded, ("bright",), tuple(range(seeds)), out).run(lambda name: find_task(name).load(out))


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
    assert "missing: broken on bright, seed 0: RuntimeError: a bug" in faults.out
    assert f"the same command trains them again: mutualign compare --plugin {PLUGIN}" in faults.out
    counts = {name: len(attempts(name)) for name in ("steady", "once", "always", "broken")}
    assert counts == {"steady": 1, "once": 2, "always": 2, "broken": 1}
    assert len(set(attempts("once"))) == len(set(attempts("always"))) == 2  # each time in a new process
    rows = json.loads(Path("rows.json").read_text())["rows"]
    assert {row["recipe"] for row in rows} == {"steady", "once"}


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
        assert f"mutualign run --resume out/bright/{name}/seed-0\n" in listed.out
    assert "--resume out/bright/once" not in listed.out
    assert mutualign("runs", "--plugin", PLUGIN, "empty").code == 2
    without_plugin = status_of_without_plugin(run_of("out", "steady").path)
    assert (without_plugin.state, without_plugin.can_resume) == ("failed", False)


def status_of_without_plugin(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_loaded", [])
        patch.delitem(sys.modules, "faulty")
        return status_of(path)


def test_a_stopped_comparison_saves_says_how_to_resume_and_ends_as_if_nothing_had_happened(place):
    def interrupt():
        deadline = time.monotonic() + 60
        while not count_epochs(run_of("stopped", "patient").path) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    (place / "patient.toml").write_text(RECIPE.format(method="patient", epochs=20))
    thread = threading.Thread(target=interrupt)
    thread.start()
    stopped = compare("patient,dann", "stopped", "--seeds", "2", "--jobs", "2")
    thread.join()
    assert stopped.code == 130
    assert "stopped and saved; resume with: mutualign compare" in stopped.err
    assert [path.name for path in Path("stopped").iterdir()] == ["bright"]  # no stop file is left
    first = status_of(run_of("stopped", "patient").path)
    assert first.state == "stopped"
    assert 0 < first.epochs < 20
    assert compare("patient,dann", "stopped", "--seeds", "2", "--jobs", "2").code == 0
    in_this_process("patient,dann", Path("unstopped"), seeds=2)
    for name in ("patient", "dann"):
        for seed in (0, 1):
            assert contents(run_of("stopped", name, seed)) == contents(run_of("unstopped", name, seed))
    assert compare("patient,dann", "stopped", "--seeds", "2", "--jobs", "2").out.startswith("0 runs to train\n")


def test_a_run_keeps_the_command_that_the_user_typed_and_its_plugin(faults, place):
    config = run_of("out", "steady").config()
    assert config.command.startswith(f"mutualign compare --plugin {PLUGIN} -r steady.toml")
    assert config.plugins == [str(PLUGIN)]
    assert RunSpec(config.recipe, "bright", 0) == config.run_spec
