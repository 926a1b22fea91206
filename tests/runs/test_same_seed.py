"""The same seed gives the same run: in another process, with other threads, and in later versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mutualign.methods import METHODS
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from tests.golden import ACROSS, furthest, golden_losses, losses
from tests.run_contents import contents
from tests.runs.samples import recipe
from tests.tiny_task import make_tiny_task

ROOT = Path(__file__).parents[2]
# Relative: losses of ten steps with two threads against those with one, as sums are split differently. Batch norm in
# bf16 may differ by more; and if a threshold decides about a pseudo-label, rounding can turn into a choice.
THREADS = {"float32": 1e-4, "bf16": 1e-2}
RUNS = [("source_only,mutual_align", "float32"), ("dann,mani", "bf16")]


def train(names: str, precision: str, path: Path) -> dict:
    """Everything that a run leaves, except times."""
    trained = recipe(*names.split(","), epochs=1, batch_size=10, precision=precision)
    Experiment.start(trained, make_tiny_task(), 0, path).run()
    return contents(RunFolder(path))


def train_all(folder: Path, threads: list[int]) -> None:
    """What a child does: every run with each number of threads; the findings go to standard output."""
    found: dict[str, dict] = {}
    for count in threads:
        torch.set_num_threads(count)
        found[str(count)] = {" ".join(run): train(*run, folder / str(count) / "-".join(run)) for run in RUNS}
    print(json.dumps(found))


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """What another process found, by threads and run. In it, sets of strings have another order than in this one."""
    # The package is imported without checks of shapes, which take seconds to set up.
    code = "from pathlib import Path; from tests.runs.test_same_seed import *; "
    code += f"train_all(Path({str(tmp_path_factory.mktemp('runs'))!r}), [1, 2])"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    environment |= {"GOMP_SPINCOUNT": "0"}  # threads that wait leave the core to others
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, timeout=250)
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_two_processes_come_to_the_same_bits(child, run, tmp_path):
    assert os.environ.get("PYTHONHASHSEED") != "1"
    here = json.loads(json.dumps(train(*run, tmp_path / "run")))
    assert len(here["tensors"]) > 10
    assert child["1"][" ".join(run)] == here


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_one_thread_and_two_agree_to_a_tolerance(child, run):
    one, two = (child[threads][" ".join(run)]["records"] for threads in ("1", "2"))
    for mine, theirs in zip(one, two, strict=True):
        expected = {key: value for key, value in theirs["means"].items() if key.startswith("loss_")}
        assert {key: mine["means"][key] for key in expected} == pytest.approx(expected, rel=THREADS[run[1]])


# Golden losses --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    return golden_losses()


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_the_golden_ones(golden, name):
    found = losses(name)
    assert found.keys() == golden[name].keys()
    assert furthest(found, golden[name]) < ACROSS


@pytest.mark.parametrize("name", ["source_only", "dann", "mani", "mutual_align", "vada"])
def test_another_seed_or_a_tenth_more_learning_rate_is_far_from_the_golden_losses(golden, name):
    for change in ({"seed": 1}, {"faster": 1.1}):
        assert furthest(losses(name, **change), golden[name]) > 10 * ACROSS
