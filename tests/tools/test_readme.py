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
