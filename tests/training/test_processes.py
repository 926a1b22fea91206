"""Two processes equal one: the same gradients, weights and runs; if one of them ends, so does the other."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import PrefixStore, TCPStore

from mutualign.cli.stopping import StopSignal
from mutualign.cli.train import Run
from mutualign.errors import MutualignError
from mutualign.io.tensors import pack, unpack
from mutualign.methods import METHODS, MethodEntry, NoConfig
from mutualign.nn.distributed import any_process
from mutualign.runs.experiment import Experiment
from mutualign.runs.observer import Observer
from mutualign.training import connection, distributed, keepalive
from mutualign.training.batches import Batches
from mutualign.training.distributed import ONE, Processes, make_fabric, report_lost_processes
from mutualign.training.loop import StageTrainer
from mutualign.training.setup import build_classifier, build_method
from tests.children import finish, start, start_command
from tests.methods.test_kinds import ToyMCD
from tests.tiny_task import make_tiny_task
from tests.training.tiny_runs import CLASSES, SHAPE, make_recipe, stripes

STEPS = 4
CASES = [
    ("dann", "mani_cnn"),
    ("mani", "two_block_cnn"),
    ("mutual_align", "two_block_cnn"),
    ("alternating", "mlp"),
    ("adabn", "two_block_cnn"),
]


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


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def keeps_alive():
    """Of every TCP connection to another process, whether keep-alive is on."""
    found = []
    for number in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(number.name))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.getpeername():
                found.append(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1)
    return found


def take_part(rank, port, folder):
    """One of two processes."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    torch.distributed.get_backend = lambda: "nccl"  # so that CPU tensors have a group of their own, as with GPUs
    distributed.bf16_is_faster = lambda device: rank == 1  # two kinds of processors
    fabric = make_fabric("auto", "cpu", Processes(2))
    assert (fabric.world_size, fabric.global_rank) == (2, rank)
    assert any_process(rank == 1)
    assert not any_process(False)
    assert len(keeps_alive()) > 2
    assert all(keeps_alive())
    for name, backbone in CASES:
        (folder / f"{name}-{rank}").write_bytes(pack(take_steps(name, backbone, fabric), {}))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """The results of two processes, by rank; a function of the method."""
    folder = tmp_path_factory.mktemp("two")
    port = free_port()
    assert [finish(child) for child in [start(take_part, rank, port, folder) for rank in (0, 1)]] == [0, 0]
    return lambda name: [unpack(folder / f"{name}-{rank}")[0] for rank in (0, 1)]


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_two_processes_have_the_gradients_of_one_on_the_whole_batch(of_two, name, backbone):
    first, second = of_two(name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    one = take_steps(name, backbone, make_fabric("float32", "cpu"))
    assert one.keys() == first.keys()
    gradients = [value for key, value in one.items() if key.startswith("0/")]
    assert any(value.abs().max() > 1e-3 for value in gradients) or name == "adabn"
    for key, value in one.items():
        assert (first[key] - value).float().norm() <= 1e-3 * value.float().norm() + 1e-6, key


def stop_when_estimated(rank, port, path):
    """One of two processes that train on images for which the time is estimated; both are stopped once it is."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    stop, task = StopSignal(rank == 0), make_tiny_task(enlarged=4)

    class Terminated(Observer):
        def expects(self, seconds):
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {"accelerator": "cpu", "processes": Processes(2), "observer": Terminated(), "should_stop": stop}
    with stop.saving("resume it"):
        Experiment.start(make_recipe("dann", backbone="mlp"), task, 0, path, **settings).run()


def test_two_processes_train_on_images_for_which_the_time_is_estimated_and_one_signal_ends_both(tmp_path):
    port = free_port()
    children = [start(stop_when_estimated, rank, port, tmp_path / "run") for rank in (0, 1)]
    try:
        assert [finish(child) for child in children] == [128 + signal.SIGTERM, 0]
    finally:
        for child in children:
            child.kill()
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


# The command line -----------------------------------------------------------------------------------------------------

RECIPE = """
backbone = "mlp"
precision = "float32"
[[stages]]
method = "patient"
epochs = 2
batch_size = 128
"""
PLUGIN = '''
"""MutualAlign that waits at its second step, until the file `go` is there."""
import time
from pathlib import Path
from mutualign.methods import register_method
from mutualign.methods.mutual_align import MutualAlign, MutualAlignConfig

@register_method("patient", MutualAlignConfig)
class Patient(MutualAlign):
    """MutualAlign that waits at its second step."""

    steps = 0

    def after_step(self):
        super().after_step()
        self.steps += 1
        deadline = time.monotonic() + 100
        while self.steps == 2 and not Path("go").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
'''
TWO = ["--devices", "2", "--accelerator", "cpu", "--save-every", "0"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]


def mutualign(folder, *arguments):
    """The command in a process group of its own."""
    return start_command(["run", "--plugin", "patient.py", *arguments], folder, folder / "log")


def children_of(process):
    """The processes of a run that one of them started; a copy of it that is about to become git is none."""
    pids = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    return [pid for pid in pids if b"LOCAL_RANK=" in environment_of(pid)]


def environment_of(pid):
    """What a process was started with: a child has its parent's until it executes another program."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended
        return b""


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
def test_a_run_of_two_processes_that_loses_one_or_is_stopped_resumes_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "patient.toml").write_text(RECIPE)
    (tmp_path / "patient.py").write_text(PLUGIN)
    log, run = tmp_path / "log", tmp_path / "runs" / "digits" / "patient" / "seed-0"
    child = mutualign(tmp_path, "--recipe", "patient.toml", *TWO)
    (other,) = wait_for(lambda: children_of(child), 60)
    os.kill(other, signal.SIGKILL)  # while it starts
    assert finish(child, 30) == 2
    ended = (
        r"process 0 of 2: another process of this run has ended\n  reason   process 1 was killed by SIGKILL\n  hint: "
    )
    assert re.search(ended, log.read_text())

    log.unlink()
    child = mutualign(tmp_path, "--resume", str(run), *TWO)
    wait_for((run / "checkpoints" / "last.safetensors").exists, 90)
    (other,) = children_of(child)
    child.terminate()
    (tmp_path / "go").touch()
    assert finish(child, 30) == 128 + signal.SIGTERM
    wait_for(lambda: not alive(other), 30)
    assert f"resume with: mutualign run --resume {run}" in log.read_text()

    command = [*TORCHRUN, "mutualign", "run", "--plugin", "patient.py", "--resume", str(run), "--accelerator", "cpu"]
    with log.open("w") as output:
        subprocess.run(command, cwd=tmp_path, stdout=output, stderr=output, timeout=200, check=True)
    result = json.loads((run / "result.json").read_text())
    assert result["hardware"].endswith("float32, 2 processes")
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert log.read_text().count("oracle (needs labels)") == 1  # one of them shows the result


LAUNCH = """
import os, time
from mutualign.training.launching import local_processes
if "LOCAL_RANK" in os.environ:
    local_processes.watch_launcher()
else:
    local_processes.start(0, 2)
time.sleep(300)
"""


def test_of_a_process_and_the_one_that_it_started_neither_outlives_the_other_whatever_they_do(tmp_path):
    (tmp_path / "launch.py").write_text(LAUNCH)
    first, second = (
        subprocess.Popen([sys.executable, "launch.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    (left,), (killed,) = (wait_for(lambda one=one: children_of(one), 60) for one in (first, second))
    first.kill()
    os.kill(killed, signal.SIGKILL)
    assert second.wait(30) == 2
    assert "process 1 was killed by SIGKILL, so this one ends too\n  hint: " in second.communicate()[1]
    wait_for(lambda: not alive(left), 30)
    assert "the process that started this one has ended" in first.communicate()[1]


# While they connect ---------------------------------------------------------------------------------------------------


def connect_one(rank, size, address, port, folder, limits):
    """One of several processes that nobody watches, as on several computers; its error goes to a file."""
    for name, seconds in limits.items():
        setattr(connection if hasattr(connection, name) else keepalive, name, seconds)
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "NODE_RANK": str(rank), "LOCAL_RANK": "0"}
    stop = StopSignal(rank == 0)
    (folder / f"{rank}.started").touch()
    with stop.saving("resume it"):
        try:
            fabric = make_fabric("float32", "cpu", Processes(1, size), stop)
            (folder / f"{rank}.connected").touch()
            with report_lost_processes(fabric, folder):
                while not any_process(False):
                    if (folder / f"{rank}.unplug").exists():
                        unplug()
        except MutualignError as error:
            (folder / f"{rank}.error").write_text(str(error))
            os._exit(2)


SO_ATTACH_FILTER, DROP_ALL = 26, struct.pack("HBBI", 0x06, 0, 0, 0)  # Linux; a packet filter of one statement: return 0


def unplug():
    """Stop for good, as a computer without power: what arrives on its connections is dropped and never answered."""
    statement = ctypes.create_string_buffer(DROP_ALL)
    program = struct.pack("HL", 1, ctypes.addressof(statement))
    for number in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(number.name))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)  # it closes nothing by itself
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def computers(tmp_path):
    """Start one of several processes; what it said in the end. Those that still live are killed."""
    children = []

    class Computers:
        port = free_port()

        def start(self, rank, size, address="127.0.0.1", **limits):
            children.append(start(connect_one, rank, size, address, self.port, tmp_path, limits))
            wait_for((tmp_path / f"{rank}.started").exists, 60)
            (tmp_path / f"{rank}.started").unlink()
            return children[-1]

        def connected(self, rank):
            wait_for((tmp_path / f"{rank}.connected").exists, 60)
            (tmp_path / f"{rank}.connected").unlink()

        def listening(self):
            def answers():
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", self.port)) == 0

            wait_for(answers, 60)

        def reported(self, rank):
            """Wait until one of them, but the first, has told the first that it has come."""
            store = TCPStore("127.0.0.1", self.port, timeout=timedelta(seconds=60), wait_for_workers=False)
            PrefixStore("mutualign/0", store).wait([f"report/{rank}"], timedelta(seconds=60))

        def error(self, rank, child):
            assert finish(child) == 2
            return (tmp_path / f"{rank}.error").read_text()

    yield Computers()
    for child in children:
        child.kill()
        child.join()


def test_a_process_that_is_killed_while_others_are_still_awaited_ends_those_that_had_come(computers):
    first, second = computers.start(0, 3, SILENCE_SECONDS=2), computers.start(1, 3)
    computers.reported(1)
    second.kill()
    assert re.search(
        r"process 0 of 3: another process .*\n  reason   process 1 no longer .*\n  hint: ", computers.error(0, first)
    )

    first, second = computers.start(0, 3), computers.start(1, 3)
    computers.reported(1)
    first.kill()
    assert re.search(
        r"process 1 of 3: another process .*\n  reason   process 0 no longer .*\n  hint: ", computers.error(1, second)
    )


def test_a_process_that_is_killed_in_training_ends_the_others(computers):
    for killed, left in ((0, 1), (1, 0)):
        children = [computers.start(rank, 2) for rank in (0, 1)]
        computers.connected(0)
        computers.connected(1)
        children[killed].kill()
        message = computers.error(left, children[left])
        assert re.search(rf"process {left} of 2: another process .*\n.*\n  hint: .* --resume", message)


def test_a_computer_that_loses_its_power_in_training_ends_the_others(computers, tmp_path):
    assert keepalive.IDLE_SECONDS + keepalive.PROBES * keepalive.PROBE_SECONDS < 30
    first, second = (computers.start(rank, 2, IDLE_SECONDS=1, PROBE_SECONDS=1, PROBES=2) for rank in (0, 1))
    computers.connected(0)
    computers.connected(1)
    (tmp_path / "0.unplug").touch()
    message = computers.error(1, second)
    assert first.is_alive()
    assert re.search(r"process 1 of 2: another process .*\n  reason .*timed out.*\n  hint: .* --resume", message)


def test_a_process_that_never_comes_is_not_awaited_for_ever(computers):
    first = computers.start(0, 2, ARRIVAL_SECONDS=1)
    assert "process 1 at 127.0.0.1" in computers.error(0, first)
    second = computers.start(1, 2, ARRIVAL_SECONDS=1)
    assert f"process 0 did not answer at 127.0.0.1:{computers.port} within 1 seconds" in computers.error(1, second)


def test_a_port_in_use_and_a_wrong_address_are_named(computers):
    with socket.socket() as other:
        other.bind(("", computers.port))
        other.listen()
        message = computers.error(0, computers.start(0, 2))
        assert f"port {computers.port} is in use by another program\n  reason " in message
        assert "\n  hint:    set MASTER_PORT" in message
    unknown = computers.start(1, 2, "nowhere.invalid", NAME_SECONDS=1)
    assert "no computer is named nowhere.invalid" in computers.error(1, unknown)


def test_one_signal_stops_a_process_that_waits_for_others(computers):
    waiting = [computers.start(0, 2), computers.start(1, 2, "192.0.2.1")]  # an address that nobody has
    computers.listening()
    for child in waiting:
        os.kill(child.pid, signal.SIGTERM)
    begun = time.monotonic()
    assert [finish(child) for child in waiting] == [128 + signal.SIGTERM, 0]  # the first one says how it ended
    assert time.monotonic() - begun < 15


# Who is which ---------------------------------------------------------------------------------------------------------

PLACES = {
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}


@pytest.fixture
def environment(monkeypatch):
    """Set the environment variables of processes, and no others."""

    def set_only(**values):
        for name in PLACES.union(name for name in os.environ if name.startswith("SLURM_")):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    set_only()
    return set_only


def test_the_number_of_processes_is_the_options_or_torchruns(environment):
    environment(WORLD_SIZE="9")  # of something else
    assert Run()._processes() == ONE
    assert Run(devices=3)._processes() == Processes(3)
    with pytest.raises(MutualignError, match="--devices must be from 1"):
        Run(devices=-1)._processes()
    torchrun = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1", "RANK": "5"}
    environment(**torchrun, LOCAL_RANK="1", GROUP_RANK="1")
    assert Run()._processes() == Run(devices=4, nodes=2)._processes() == Processes(4, 2)
    with pytest.raises(MutualignError, match=r"4 processes on each of 2 node\(s\), but 2 on 2 .*\n  hint: "):
        Run(devices=2)._processes()


def test_the_first_of_several_computers_alone_writes_the_run(environment):
    place = {"MASTER_ADDR": "first.cluster", "MASTER_PORT": "29500"}
    environment(**place, NODE_RANK="0")
    assert Run(devices=2, nodes=2)._processes().first
    environment(**place, NODE_RANK="1")
    assert not Run(devices=2, nodes=2)._processes().first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NODE_RANK", "2"),
        ("NODE_RANK", None),
        ("LOCAL_RANK", "x"),
        ("MASTER_PORT", "99999"),
        ("MASTER_PORT", None),
        ("MASTER_ADDR", None),
        ("LOCAL_WORLD_SIZE", "x"),
    ],
)
def test_a_missing_or_wrong_variable_is_named_before_anything_is_made(environment, name, value):
    right = {"NODE_RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "first.cluster", "MASTER_PORT": "29500"}
    environment(**{key: one for key, one in (right | {name: value}).items() if one is not None})
    with pytest.raises(MutualignError, match=rf"the environment variable {name} is .*\n  hint: "):
        Run(devices=2, nodes=2)._processes()


def test_a_slurm_job_of_several_tasks_leaves_a_single_run_alone_and_its_step_numbers_several(environment):
    job = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "77"}
    environment(**job)
    assert Run()._processes().first
    assert make_fabric("float32", "cpu").world_size == 1
    assert Run(devices=4)._processes().first  # starts the other three itself
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}
    environment(**job | step)
    assert not Run(devices=4)._processes().first
    assert make_fabric("float32", "cpu", Run()._processes()).world_size == 1


def test_an_error_that_is_not_about_processes_is_not_taken_for_one(tmp_path):
    fabric = make_fabric("float32", "cpu")
    with pytest.raises(RuntimeError, match="gloo or not"), report_lost_processes(fabric, tmp_path):
        raise RuntimeError("gloo or not, this is one process")
