"""The results file of a benchmark."""

from __future__ import annotations

import datetime
import json
import shlex
import sys

import results_file


def test_a_results_file_names_the_command_commit_and_hardware_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/some.py", "--task", "two words"])
    path = tmp_path / "new" / "results.json"
    results_file.write(path, results_file.origin() | {"hardware": "another machine"}, [{"n": 1}], limit=2.5)
    content = json.loads(path.read_text())
    assert list(content) == ["command", "commit", "hardware", "created", "limit", "rows"]
    assert shlex.split(content["command"]) == ["python", "benchmarks/some.py", "--task", "two words"]
    assert content["commit"] == "none" or len(content["commit"].removesuffix("+changed")) == 40
    assert (content["hardware"], content["limit"], content["rows"]) == ("another machine", 2.5, [{"n": 1}])
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(content["created"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
