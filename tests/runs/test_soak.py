"""A long run stays small: its memory, its records and its files do not grow with the number of steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.training.callbacks import Callbacks, CheckpointPolicy
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import keep_freed_memory
from mutualign.training.loop import train
from tests.runs.samples import SPEC, config, recipe
from tests.tiny_task import make_tiny_task

ROOT = Path(__file__).parents[2]
GROWTH = 20.0  # MiB of resident memory after warm-up
RECORD = 4000  # bytes: more than a line of metrics.jsonl ever has
SOAK = int(os.environ.get("MUTUALIGN_SOAK", "600"))  # steps; 10,000 are promised, and too long for CI


def resident() -> float:
    """MiB of memory that this process occupies (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def long(method, steps, epochs):
    return recipe(method, epochs=epochs, batch_size=5, backbone="mlp", epoch_steps=steps // epochs)


def soak(method: str, steps: int, path: Path) -> None:
    """What a child does: train with checkpoints all along; memory every tenth of the steps goes to standard output."""
    torch.set_num_threads(1)
    keep_freed_memory()
    task, run, found = make_tiny_task(), RunFolder.create(path, config(SPEC)), []

    def on_step(stage: int, done: int, total: int) -> None:
        if done % (steps // 10) == 0:
            found.append(resident())

    train(
        long(method, steps, 10),
        task.source_train,
        task.target_train.images,
        task.shape,
        3,
        0,
        run.checkpoints,
        make_fabric("float32", "cpu"),
        Callbacks(on_step),
        CheckpointPolicy(every=0.5),
    )
    print(json.dumps({"resident": found, "steps_done": run.checkpoints.load("last")[1]["steps_done"]}))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(1800)
def test_memory_stays_flat_over_many_steps(tmp_path):
    """In full: `MUTUALIGN_SOAK=10000 pytest -s tests/runs/test_soak.py`."""
    code = f"from tests.runs.test_soak import *; soak('mutual_align', SOAK, Path({str(tmp_path / 'run')!r}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    found = json.loads(output.splitlines()[-1])
    assert found["steps_done"] == SOAK
    assert len(found["resident"]) == 10
    print(f"{SOAK} steps: resident memory in MiB {found['resident']}")
    _, warm, *later = found["resident"]  # the second is taken after an epoch and its checkpoint
    assert warm > 50  # it is measured at all
    assert max(later) - warm < GROWTH * max(SOAK, 1000) / 10_000  # as steep as promised
    files = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert files == {"config.toml", "last.safetensors", "last-1.safetensors"}


def test_records_and_files_do_not_grow_with_the_steps(tmp_path, tiny_task):
    """Ten and forty steps per epoch: the same files of the same sizes, and lines that differ by digits only."""
    runs = []
    for steps in (10, 40):
        path = tmp_path / f"{steps}"
        trained, policy = long("mutual_align", 2 * steps, 2), CheckpointPolicy(every=0.0)
        Experiment.start(trained, tiny_task, 0, path, policy=policy).run()
        runs.append({str(file.relative_to(path)): file.stat().st_size for file in path.rglob("*") if file.is_file()})
        lines = (path / "metrics.jsonl").read_bytes().splitlines()
        assert len(lines) == 2
        assert all(len(line) < RECORD for line in lines)
    few, many = runs
    assert few.keys() == many.keys()
    for name, size in few.items():
        if name == "result.json":  # it names alarms, of which longer training raises fewer
            continue
        assert abs(many[name] - size) < 400, name
