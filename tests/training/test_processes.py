"""Two processes equal one: the same gradients, weights and runs; and where one of them is lost, the other ends."""

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
from tests.training.test_kill import finish, start

from mutualign.cli.train import Run
from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.io.tensors import pack, unpack
from mutualign.methods import METHODS
from mutualign.recipes import parse_recipe
from mutualign.runs.folder import RunFolder
from mutualign.training.batches import Batches
from mutualign.training.distributed import ONE, Processes, make_fabric, report_lost_processes
from mutualign.training.loop import StageTrainer
from mutualign.training.setup import build_classifier, build_method

SHAPE, STEPS = ImageShape(3, 16, 16), 6
OPTIONS = {"mani": {"threshold": 0.35}, "mutual_align": {"threshold": 0.3}}  # pairs and pseudo-labels from the start
CASES = [(name, backbone) for name in METHODS for backbone in ("mani_cnn", "two_block_cnn")]
CASES.append(("source_only", "small_resnet"))


def noisy_stripes(n, seed):
    """Three classes, told apart by which third of the rows is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    pixels = torch.randint(0, 100, (n, 16, 16, 3), dtype=torch.uint8, generator=generator)
    for row, label in enumerate(labels.tolist()):
        pixels[row, 5 * label : 5 * label + 5] += 120
    return LabelledImages(UnlabelledImages(pixels), labels)


def take_steps(name, backbone, fabric):
    """Gradients of some steps, with weights that hardly move, as Adam blows up rounding; and the state at the end."""
    options = OPTIONS.get(name, {})
    stage = {"method": name, "epochs": 3, "batch_size": 8, "learning_rate": 1e-8, "options": options}
    recipe = parse_recipe({"name": "t", "description": "", "backbone": backbone, "stages": [stage]}, "test")
    torch.manual_seed(1)
    method = build_method(recipe.stages[0], build_classifier(recipe, SHAPE, 3))
    target = noisy_stripes(14, 1).images if method.uses_target else None  # a batch of 8, and one of 6
    # Source batches of 8 and of 1: two processes take 9 rows in shares of 5 and 4, a single row in shares of 1 and 0.
    batches = Batches(noisy_stripes(9, 0), target, 3, 8, 0, 0)
    trainer = StageTrainer(0, recipe.stages[0], 0, method, batches, fabric)
    found = {}
    for step in range(STEPS):
        trainer.step()
        for key, weight in method.named_parameters():
            if weight.grad is not None:
                found[f"{step}/{key}"] = weight.grad.clone()
    return found | {f"state/{key}": value for key, value in method.state_dict().items()}


def take_part(rank, port, folder):
    """One of two processes."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    fabric = make_fabric("float32", "cpu", Processes(2))
    assert (fabric.world_size, fabric.global_rank) == (2, rank)
    for name, backbone in CASES:
        (folder / f"{name}-{backbone}-{rank}").write_bytes(pack(take_steps(name, backbone, fabric), {}))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes have come to, by rank; a function of method and backbone."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert [finish(child) for child in [start(take_part, rank, port, folder) for rank in (0, 1)]] == [0, 0]
    return lambda name, backbone: [unpack(folder / f"{name}-{backbone}-{rank}")[0] for rank in (0, 1)]


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_two_processes_have_the_gradients_of_one_on_the_whole_batch(of_two, name, backbone, faults):
    with faults.injected("two processes equal one"):
        first, second = of_two(name, backbone)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        one = take_steps(name, backbone, make_fabric("float32", "cpu"))
        assert one.keys() == first.keys()
        assert any(value.abs().max() > 1e-3 for key, value in one.items() if key.startswith("0/"))
        for key, value in one.items():
            assert (first[key] - value).float().norm() <= 1e-3 * value.float().norm() + 1e-6, key


# The command line -----------------------------------------------------------------------------------------------------

SHORT = ["stages.0.epochs=4", "stages.0.epoch_steps=0", "stages.0.batch_size=128", "precision=float32"]
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
def test_a_run_of_two_processes_may_lose_either_be_stopped_and_go_on_to_the_result_of_one(tmp_path, faults):
    run, log = RunFolder(tmp_path / "runs" / "digits" / "fast" / "seed-0"), tmp_path / "log"
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

    with faults.injected("two processes equal one", 2):
        child, other = begin("--recipe", "fast", "--set", *SHORT, *TWO[:4], "--save-every", "0.5")
        os.kill(other, signal.SIGKILL)
        assert child.wait(30) in (2, -signal.SIGKILL)
        assert run.result() is None
        if child.returncode == 2:
            assert re.search(
                r"another process of this run has ended\n.*\n  do .*mutualign run --resume", log.read_text()
            )

        child, other = begin(*resume)
        child.kill()
        child.wait()
        wait_for(lambda: not alive(other), 30)
        assert run.result() is None

    with faults.injected("stopped by a signal"):
        child, other = begin(*resume)
        child.terminate()
        assert child.wait(30) == 128 + signal.SIGTERM
        wait_for(lambda: not alive(other), 30)
        assert f"go on with: mutualign run --resume {run.path}" in log.read_text()

    with faults.injected("two processes equal one"):
        torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")
        child = mutualign(tmp_path, "--resume", str(run.path), "--accelerator", "cpu", launcher=torchrun)
        assert child.wait(200) == 0, log.read_text()
        assert run.result()["hardware"].endswith("float32, 2 processes")
        assert [record["epoch"] for record in run.metrics()] == [1, 2, 3, 4]
        assert log.read_text().count("oracle (needs labels)") == 1  # one of them shows the result

        alone = mutualign(tmp_path, "--recipe", "fast", "--set", *SHORT, "--accelerator", "cpu", "--out", "alone")
        assert alone.wait(100) == 0, log.read_text()
        one = RunFolder(tmp_path / "alone" / "digits" / "fast" / "seed-0")
        for mine, theirs in zip(run.metrics(), one.metrics(), strict=True):
            assert mine["means"]["loss_class"] == pytest.approx(theirs["means"]["loss_class"], rel=0.05)
            assert mine["target_accuracy"] == pytest.approx(theirs["target_accuracy"], abs=0.08)


def test_how_many_processes_there_are_is_asked_for_or_is_what_torchrun_has_started(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "9")  # of something else
    assert Run()._processes() == ONE
    assert Run(devices=3, nodes=2)._processes() == Processes(3, 2)
    with pytest.raises(MutualignError, match="at least one device"):
        Run(devices=-1)._processes()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Run()._processes() == Run(devices=4, nodes=2)._processes() == Processes(4, 2)
    with pytest.raises(MutualignError, match=r"4 processes on each of 2 node\(s\), and 2 on 2 .*\n  do "):
        Run(devices=2)._processes()


def test_an_error_that_is_not_about_processes_is_not_taken_for_one(tmp_path):
    fabric = make_fabric("float32", "cpu")
    with pytest.raises(RuntimeError, match="gloo or not"), report_lost_processes(fabric, tmp_path):
        raise RuntimeError("gloo or not, this is one process")
