"""The blind test: its tasks, and its results file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import blind
import blind_summary
import torch
from blind_tasks import blind_tasks


def test_half_of_each_kind_is_for_tuning_and_names_make_the_tasks():
    tasks = blind_tasks()
    assert Counter((task.kind, task.half) for task in tasks) == {
        **{("images", half): 25 for half in ("tune", "blind")},
        **{("photos", half): 3 for half in ("tune", "blind")},
        **{("vectors", half): 30 for half in ("tune", "blind")},
    }
    one, again = (next(task for task in tasks if task.name == "noise-0.5").load(Path()) for _ in range(2))
    rows = torch.arange(9)
    assert torch.equal(one.target_train.images.take(rows, 0), again.target_train.images.take(rows, 0))


def test_kinds_of_tasks_that_are_measured_at_different_times_share_a_file(measured, tmp_path):
    path, (_, images) = tmp_path / "blind.json", measured
    vectors = [row | {"kind": "vectors"} for row in images]

    def origin(commit):
        return {"command": "blind.py", "commit": commit, "hardware": "a machine"}

    blind.write(path, origin("a"), [*vectors, *images])
    blind.write(path, origin("b"), [row | {"seed": 1} for row in images])
    found = json.loads(path.read_text())
    assert [(row["kind"], row["seed"]) for row in found["rows"]] == [("images", 1)] * 4 + [("vectors", 0)] * 4
    assert found["origins"] == {"images": origin("b"), "vectors": origin("a")}
    assert (found["command"], found["commit"]) == ("blind.py", "b, a")
    assert found["summary"] == json.loads(json.dumps(blind_summary.summarise(found["rows"])))
