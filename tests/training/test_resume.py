"""A whole experiment that was stopped leaves the same files as one that was not: all but times, bit for bit."""

from __future__ import annotations

import itertools

import pytest

from mutualign.errors import MutualignError
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.training.loop import Stopped
from tests.run_contents import contents
from tests.tiny_task import make_tiny_task
from tests.training.tiny_runs import make_recipe

STAGE = 14  # steps: 50 source images in batches of 8 are seven steps per epoch, two epochs per stage


@pytest.mark.parametrize(
    ("methods", "precision"), [(("source_only", "mutual_align"), "float32"), (("dann", "mani"), "bf16")]
)
def test_weights_records_chosen_epochs_and_result_are_those_of_a_run_that_was_not_stopped(tmp_path, methods, precision):
    recipe, task = make_recipe(*methods, precision=precision), make_tiny_task()
    Experiment.start(recipe, task, 0, tmp_path / "whole").run()
    expected = contents(RunFolder.open(tmp_path / "whole"))
    for number, stops in enumerate([(STAGE,), (2 * STAGE,), (4, STAGE + 3, 2 * STAGE - 2)]):
        path, done = tmp_path / f"run-{number}", itertools.count(1)
        for stop in stops:
            stopping = {"should_stop": lambda stop=stop, done=done: next(done) == stop}
            if path.exists():
                experiment = Experiment(recipe, task, 0, RunFolder.open(path), **stopping)
            else:
                experiment = Experiment.start(recipe, task, 0, path, **stopping)
            with pytest.raises(Stopped):
                experiment.run()
            assert RunFolder.open(path).result() is None
        Experiment(recipe, task, 0, RunFolder.open(path)).run()
        found = contents(RunFolder.open(path))
        for part in ("tensors", "infos"):  # last-1 differs: the stopped run also saved where it was stopped
            assert found[part].keys() == expected[part].keys()
            assert all(found[part][key] == value for key, value in expected[part].items() if key != "last-1")
        assert found["records"] == expected["records"]
        assert found["result"] == expected["result"]


def test_a_checkpoint_of_another_version_of_the_method_is_refused_with_what_differs_and_a_hint(tmp_path):
    recipe, task, done = make_recipe("neighbour_information"), make_tiny_task(), itertools.count(1)
    with pytest.raises(Stopped):
        Experiment.start(recipe, task, 0, tmp_path / "run", should_stop=lambda: next(done) == 4).run()
    folder = RunFolder.open(tmp_path / "run")
    tensors, info = folder.checkpoints.load("last")
    del tensors["method.prior.shares"]
    folder.checkpoints.save("last", tensors, info)
    with pytest.raises(MutualignError, match=r'fit the method neighbour_information: .*"prior\.shares"(.|\n)*hint: '):
        Experiment(recipe, task, 0, RunFolder.open(tmp_path / "run")).run()
