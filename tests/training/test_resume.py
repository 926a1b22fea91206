"""A whole experiment that was stopped leaves what one that was not leaves: all but times, bit for bit."""

from __future__ import annotations

import itertools

import pytest

from mutualign.recipes import parse_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.training.loop import Stopped
from tests.conftest import make_tiny_task
from tests.run_contents import contents

STAGES = [("source_only", "mutual_align"), ("dann", "mani")]
STOPS = [(10,), (20,), (4, 13, 18)]  # of 20 steps, five an epoch, ten a stage; the last is stopped thrice


def make_recipe(methods, precision):
    eager = {"threshold": 0.35}  # of a third by chance: pseudo-labels from the first step
    options = {"mani": eager, "mutual_align": eager}
    common = {"epochs": 2, "batch_size": 10, "learning_rate": 3e-3}
    stages = [common | {"method": name, "options": options.get(name, {})} for name in methods]
    return parse_recipe({"name": "test", "description": "", "precision": precision, "stages": stages}, "test")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves that nothing stops; made once a recipe."""
    done = {}

    def whole(recipe):
        if (key := str(recipe)) not in done:
            path = tmp_path_factory.mktemp("whole") / "run"
            Experiment.start(recipe, make_tiny_task(), 0, path).run()
            done[key] = contents(RunFolder.open(path))
        return done[key]

    return whole


@pytest.mark.parametrize("stops", STOPS, ids=str)
@pytest.mark.parametrize(
    ("methods", "precision"), [(STAGES[0], "float32"), (STAGES[1], "bf16")], ids=["mutual_align", "mani bf16"]
)
def test_weights_records_chosen_epochs_and_result_are_those_of_a_run_that_was_not_stopped(
    tmp_path, whole, methods, precision, stops, faults
):
    recipe, path, done = make_recipe(methods, precision), tmp_path / "run", itertools.count(1)
    for stop in stops:
        stopping = {"should_stop": lambda stop=stop: next(done) == stop}
        if path.exists():
            experiment = Experiment(recipe, make_tiny_task(), 0, RunFolder.open(path), **stopping)
        else:
            experiment = Experiment.start(recipe, make_tiny_task(), 0, path, **stopping)
        with pytest.raises(Stopped):
            experiment.run()
        assert RunFolder.open(path).result() is None
    with faults.injected("exact resume", len(stops)):
        Experiment(recipe, make_tiny_task(), 0, RunFolder.open(path)).run()
        expected, found = whole(recipe), contents(RunFolder.open(path))
        # The one before the newest differs: the run that was stopped saved where that was, too.
        for part in ("tensors", "infos"):
            assert found[part].keys() == expected[part].keys()
            assert {k: v for k, v in found[part].items() if k != "last-1"} == {
                k: v for k, v in expected[part].items() if k != "last-1"
            }
        assert found["records"] == expected["records"]
        assert found["result"] == expected["result"]
        assert all("validator:combined" in stage["selections"] for stage in found["result"]["stages"])
