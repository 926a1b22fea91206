"""Two processes equal one: the same gradients, weights and runs; if one of them ends, so does the other."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mutualign.cli.train import Run
from mutualign.errors import MutualignError
from mutualign.io.tensors import pack, unpack
from mutualign.methods import METHODS, MethodEntry, NoConfig
from mutualign.nn.distributed import any_process
from mutualign.recipes import load_recipe
from mutualign.runs.folder import RunFolder
from mutualign.training.batches import Batches
from mutualign.training.distributed import ONE, Processes, make_fabric, report_lost_processes
from mutualign.training.loop import StageTrainer
from mutualign.training.setup import build_classifier, build_method
from tests.methods.test_kinds import ToyMCD
from tests.runs.test_kill import finish, start
from tests.training.tiny_runs import CLASSES, SHAPE, make_recipe, stripes

STEPS = 4
CASES = [("dann", "mani_cnn"), ("mani", "two_block_cnn"), ("mutual_align", "two_block_cnn"), ("alternating", "mlp")]


class Alternating(ToyMCD):
    """Two players with several updates per step."""


def take_steps(name, backbone, fabric):
    """Gradients of some steps, with weights that hardly move, since Adam amplifies rounding; and the final state."""
    METHODS.setdefault("alternating", MethodEntry("alternating", Alternating, NoConfig))
    try:
        recipe = make_recipe(name, backbone=backbone, lr=1e-8)
        torch.manual_seed(1)
        method = build_method(recipe.stages[0], build_classifier(recipe, SHAPE, CLASSES))
        # Two processes divide 8 source and 8 target rows evenly; 3 source rows and 7 target rows not.
        batches = Batches(stripes(11, 0), stripes(15, 1).images, 3, 8, 0, 0)
        trainer, found = StageTrainer(0, recipe.stages[0], 0, method, batches, fabric), {}
        for step in range(STEPS):
            trainer.step()
            for key, weight in method.named_parameters():
                if weight.grad is not None and (name != "alternating" or "features" in key):  # the last player's
                    found[f"{step}/{key}"] = weight.grad.clone()
        return found | {f"state/{key}": value for key, value in method.state_dict().items()}
    finally:
        del METHODS["alternating"]


def take_part(rank, port, folder):
    """One of two processes."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    fabric = make_fabric("float32", "cpu", Processes(2))
    assert (fabric.world_size, fabric.global_rank) == (2, rank)
    assert any_process(rank == 1)
    assert not any_process(False)
    for name, backbone in CASES:
        (folder / f"{name}-{rank}").write_bytes(pack(take_steps(name, backbone, fabric), {}))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """The results of two processes, by rank; a function of the method."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert [finish(child) for child in [start(take_part, rank, port, folder) for rank in (0, 1)]] == [0, 0]
    return lambda name: [unpack(folder / f"{name}-{rank}")[0] for rank in (0, 1)]


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_two_processes_have_the_gradients_of_one_on_the_whole_batch(of_two, name, backbone):
    first, second = of_two(name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    one = take_steps(name, backbone, make_fabric("float32", "cpu"))
    assert one.keys() == first.keys()
    assert any(value.abs().max() > 1e-3 for key, value in one.items() if key.startswith("0/"))
    for key, value in one.items():
        assert (first[key] - value).float().norm() <= 1e-3 * value.float().norm() + 1e-6, key


# The command line -----------------------------------------------------------------------------------------------------

SHORT = ["stages.0.epochs=2", "stages.0.epoch_steps=0", "stages.0.batch_size=128", "precision=float32"]
TWO = ["--devices", "2", "--accelerator", "cpu", "--save-every", "0.5"]


def mutualign(folder, *arguments, launcher=()):
    """The command in a process group of its own, one thread a process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, *(launcher or ("-m",)), "mutualign", "run", *arguments]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def children_of(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_a_run_of_two_processes_may_lose_either_or_be_stopped_and_still_resumes_to_its_end(tmp_path):
    name, log = load_recipe("fast", SHORT).name, tmp_path / "log"
    run = RunFolder(tmp_path / "runs" / "digits" / name / "seed-0")
    resume = ("--resume", str(run.path), *TWO)

    def saved_since(mark):
        last = run.path / "checkpoints" / "last.safetensors"
        return lambda: last.exists() and last.stat().st_mtime > mark

    def begin(*arguments):
        mark = time.time()
        child = mutualign(tmp_path, *arguments)
        wait_for(saved_since(mark), 90)
        (other,) = wait_for(lambda: children_of(child), 5)
        return child, other

    child, other = begin("--recipe", "fast", "--set", *SHORT, *TWO[:4], "--save-every", "0.5")
    os.kill(other, signal.SIGKILL)
    assert child.wait(30) in (2, -signal.SIGKILL)
    assert run.result() is None
    if child.returncode == 2:
        assert re.search(
            r"another process of this run has ended\n.*\n  hint: .*mutualign run --resume", log.read_text()
        )

    child, other = begin(*resume)
    child.kill()
    child.wait()
    wait_for(lambda: not alive(other), 30)
    assert run.result() is None

    child, other = begin(*resume)
    child.terminate()
    assert child.wait(30) == 128 + signal.SIGTERM
    wait_for(lambda: not alive(other), 30)
    assert f"resume with: mutualign run --resume {run.path}" in log.read_text()

    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")
    child = mutualign(tmp_path, "--resume", str(run.path), "--accelerator", "cpu", launcher=torchrun)
    assert child.wait(200) == 0, log.read_text()
    assert run.require_result().hardware.endswith("float32, 2 processes")
    assert [record.epoch for record in run.metrics()] == [1, 2]
    assert log.read_text().count("oracle (needs labels)") == 1  # one of them shows the result


def test_the_number_of_processes_is_the_options_or_torchruns(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "9")  # of something else
    assert Run()._processes() == ONE
    assert Run(devices=3, nodes=2)._processes() == Processes(3, 2)
    with pytest.raises(MutualignError, match="--devices must be from 1"):
        Run(devices=-1)._processes()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Run()._processes() == Run(devices=4, nodes=2)._processes() == Processes(4, 2)
    with pytest.raises(MutualignError, match=r"4 processes on each of 2 node\(s\), but 2 on 2 .*\n  hint: "):
        Run(devices=2)._processes()


def test_an_error_that_is_not_about_processes_is_not_taken_for_one(tmp_path):
    fabric = make_fabric("float32", "cpu")
    with pytest.raises(RuntimeError, match="gloo or not"), report_lost_processes(fabric, tmp_path):
        raise RuntimeError("gloo or not, this is one process")
