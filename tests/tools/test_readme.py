"""The README's tables are those of results/."""

from __future__ import annotations

import json

import pytest

from tools import readme


def row(recipe: str, seed: int, selection: str, target: float) -> dict:
    return {
        "recipe": recipe,
        "task": "mnist-mnistm-resampled",
        "seed": seed,
        "selection": selection,
        "target_accuracy": target,
        "source_accuracy": 0.99,
        "train_seconds": 100.0,
        "epochs": 10,
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    rows = [
        row("dann", seed, selection, target)
        for seed, base in ((0, 0.6), (1, 0.6))
        for selection, target in (("last", base), ("validator:im", base + 0.01), ("oracle", base + 0.1))
    ]
    content = {
        "command": "mutualign compare",
        "commit": "0123456789",
        "hardware": "a machine",
        "created": "now",
        "rows": rows,
    }
    (tmp_path / "results" / "reproduction.json").write_text(json.dumps(content))
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    return tmp_path


def test_a_table_has_the_numbers_of_the_file_and_the_line_that_goes_with_them(results):
    text = readme.table("reproduction")
    assert (
        "| mnist-mnistm-resampled | dann | 71 | **60.0 ± 0.0** | 61.0 ± 0.0 | *70.0 ± 0.0* | 99.0 ± 0.0 | 2 | 100 |"
        in text
    )
    for part in ("`mutualign compare`", "a machine", "commit 0123456;", "results/reproduction.json"):
        assert part in text


def test_the_published_numbers_stand_beside_the_variant_that_they_are_of_only():
    rows = [row("dann", 0, selection, 0.5) for selection in ("last", "validator:im", "oracle")]
    head, _, line = readme.accuracy_table({"rows": [entry | {"task": "mnist-mnistm"} for entry in rows]})
    assert "published" not in head
    assert "71" not in line


def test_filling_replaces_what_stands_between_the_marks_and_nothing_else(results):
    old = "before\n<!-- table: reproduction -->\nold numbers\n<!-- end of table -->\nafter\n"
    new = readme.filled(old)
    assert new.startswith("before\n<!-- table: reproduction -->\n| task |")
    assert new.endswith("<!-- end of table -->\nafter\n")
    assert "old numbers" not in new
    assert readme.filled(new) == new


def test_check_fails_on_a_table_that_was_changed_by_hand(results, monkeypatch, capsys):
    (results / "README.md").write_text("<!-- table: reproduction -->\n<!-- end of table -->\n")
    monkeypatch.setattr("sys.argv", ["readme.py"])
    assert readme.main() == 0
    monkeypatch.setattr("sys.argv", ["readme.py", "--check"])
    assert readme.main() == 0
    text = (results / "README.md").read_text()
    (results / "README.md").write_text(text.replace("60.0", "66.0"))
    assert readme.main() == 1
    assert "make readme" in capsys.readouterr().err


def test_the_headline_stands_below_the_published_number_with_its_variant(results):
    rows = [row("mani", 0, selection, 0.858) for selection in ("last", "validator:im", "oracle")]
    both = [*rows, *(entry | {"task": "mnist-mnistm"} for entry in rows)]
    content = json.loads((results / "results" / "reproduction.json").read_text())
    (results / "results" / "reproduction.json").write_text(json.dumps(content | {"rows": both}))
    own = [row("best", seed, s, 0.98 + seed / 100) for seed in (0, 1) for s in ("last", "validator:im", "oracle")]
    lines = readme.headline_table({"rows": [entry | {"task": "mnist-mnistm"} for entry in own]})
    assert lines[2] == "| MaNi, as published | resampled | 87 | | | | | |"
    assert "| resampled | **85.8** |" in lines[3]
    assert "| frozen | **85.8** |" in lines[4]
    assert lines[5].startswith("| `best` | frozen | **98.50 ± 6.35** | 98.50 ± 6.35 | *98.50 ± 6.35* |")
    assert len(lines) == 6


def test_times_that_were_not_reached_are_empty():
    rows = [
        {"recipe": "mani", "seed": 0, "complete": False, "seconds": {"87": None, "97": None}, "curve": [[601.0, 0.52]]},
        {"recipe": "fast", "seed": 0, "complete": True, "seconds": {"87": 9.6, "97": None}, "curve": [[64.2, 0.9847]]},
    ]
    head, _, given_up, fast = readme.speed_table({"rows": rows})
    assert head == "| system | seconds to 87 % | seconds to 97 % | at the end | seed |"
    assert given_up == "| mani |  |  | 52.00 % at 601 s (given up) | 0 |"
    assert fast == "| fast | 10 |  | 98.47 % at 64 s | 0 |"


def test_what_validators_lose_is_in_points_and_in_the_order_of_the_file():
    numbers = {"epoch_mean": 0.25, "epoch_worst": 3, "recipe_mean": 1.004, "recipe_worst": 10.5}
    line = {"validator": "class_ami", "rank_correlation": None, **numbers}
    lines = readme.validators_table({"summary": [line, line | {"validator": "mano", "rank_correlation": 0.666}]})
    assert lines[2:] == [
        "| class ami |  | 0.25 | 3.00 | 1.00 | 10.50 |",
        "| mano | 0.67 | 0.25 | 3.00 | 1.00 | 10.50 |",
    ]


def test_growth_stands_beside_the_sizes_that_have_one():
    first = {"images": 1000, "epoch_seconds": 2.0, "peak_mib": 700.4}
    second = first | {"images": 2000, "time_over_images": 1.02, "memory_over_data": 0.98}
    lines = readme.scaling_table({"rows": [first, second]})
    assert lines[2:] == ["| 1,000 | 2.0 | 700 |  |  |", "| 2,000 | 2.0 | 700 | 1.02 | 0.98 |"]


def test_the_faults_are_a_line_a_promise():
    rows = [{"promise": "exact resume", "injected": 1234, "survived": 1233}]
    assert readme.faults_table({"rows": rows})[2:] == ["| exact resume | 1,234 | 1,233 |"]


def test_own_images_stand_beside_the_same_by_their_tasks_name(results):
    def rows(task):
        return [row("fast", 0, name, 0.5) | {"task": task} for name in ("last", "validator:im", "oracle")]

    content = {"command": "", "commit": "0", "hardware": "", "created": "", "rows": rows("mnist-mnistm")}
    for name in ("headline", "reproduction"):
        (results / "results" / f"{name}.json").write_text(json.dumps(content if name == "headline" else {"rows": []}))
    timing = {"name": "read and decode", "images": 70000, "seconds": 5.04, "images_per_second": 13889}
    lines = readme.own_images_table({"rows": rows("mnist-to-mnistm"), "timings": [timing]})
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| mnist-to-mnistm", "| the same by its name"]
    assert lines[-1] == "| read and decode | 70,000 | 5.0 | 13,889 |"
