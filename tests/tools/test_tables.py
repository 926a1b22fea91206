"""The tables of the docs: numbers from results/, one way to format them, and the check for hand-made changes."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tools import accuracy_tables, gain_tables, method_tables, results, speed_tables, tables
from tools.markdown import TABLES
from tools.tables import with_origin


def row(recipe, seed, selection, target, task="mnist-mnistm-resampled"):
    return {
        "recipe": recipe,
        "task": task,
        "seed": seed,
        "selection": selection,
        "chosen_epoch": 1,
        "target_accuracy": target,
        "source_accuracy": 0.99,
        "train_seconds": 100.0,
        "epochs": 10,
        "hardware": "a machine",
        "commit": "0123456789",
    }


def rows_of(recipe, targets, task="mnist-mnistm-resampled"):
    """Rows of one recipe: target accuracy at the last epoch by seed; the selected epoch adds 0.01, the oracle 0.1."""
    return [
        row(recipe, seed, selection, target + gain, task)
        for seed, target in enumerate(targets)
        for selection, gain in (("last", 0.0), ("validator:im", 0.01), ("oracle", 0.1))
    ]


def results_of(rows, **more):
    origin = {"command": "mutualign compare", "commit": "0123456789", "hardware": "a machine", "created": "now"}
    return origin | {"rows": rows} | more


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project whose results hold DANN, MaNi and the recipe `best`."""
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    for module in (results, tables):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    mani = rows_of("mani", [0.858]) + rows_of("mani", [0.877], "mnist-mnistm")
    for name, rows in {
        "reproduction": rows_of("dann", [0.6, 0.6]) + mani,
        "headline": rows_of("best", [0.98, 0.99], "mnist-mnistm"),
        "source-only-fast": rows_of("source-only-fast", [0.6, 0.62], "mnist-mnistm"),
    }.items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(results_of(rows)))
    return tmp_path


def test_a_table_has_the_numbers_of_its_file_and_their_origin(root):
    text = with_origin("reproduction", "docs")
    numbers = "| dann | 71 | **60.0 ± 0.0** | 61.0 ± 0.0 | *70.0 ± 0.0* | 99.0 ± 0.0 | 2 | 100 |"
    assert f"| mnist-mnistm-resampled {numbers}" in text
    assert "| mnist-mnistm | mani |  | **87.7** |" in text  # the published number is of the other variant
    added = "MaNi minus DANN, from which it starts, paired by seed, last epoch: mnist-mnistm-resampled +25.8 (n = 1)."
    assert added in text
    for part in ("`mutualign compare`", "a machine", "commit 0123456;", "(../results/reproduction.json)"):
        assert part in text


def test_own_recipes_follow_the_published_number_and_its_reproduction_with_two_digits_for_several_seeds(root):
    lines = accuracy_tables.headline_table(results.load("headline"))
    assert lines[2].startswith("| MaNi, as published | resampled | 87 |")
    assert "| resampled | **85.8** |" in lines[3]
    assert "| frozen | **87.7** |" in lines[4]
    assert lines[5].startswith("| source only, network of `fast` | frozen | **61.00 ± 12.71** |")
    assert lines[6].startswith("| `best` | frozen | **98.50 ± 6.35** | 99.50 ± 6.35 | *108.50 ± 6.35* |")
    short = accuracy_tables.published_table(results.load("headline"))
    assert short[6] == "| `best` | frozen | **98.50 ± 6.35** | 2 | 100 |"


def test_check_fails_on_a_table_changed_by_hand_and_nothing_outside_the_marks_is_touched(root, monkeypatch, capsys):
    marked = "before\n<!-- table: {} -->\nold numbers\n<!-- end of table -->\nafter\n"
    (root / "README.md").write_text(marked.format("published"))
    (root / "docs" / "results.md").write_text(marked.format("reproduction"))
    monkeypatch.setattr("sys.argv", ["tables.py"])
    assert tables.main() == 0
    text = (root / "docs" / "results.md").read_text()
    assert text.startswith("before\n<!-- table: reproduction -->\n| task |")
    assert text.endswith("<!-- end of table -->\nafter\n")
    assert "old numbers" not in text
    monkeypatch.setattr("sys.argv", ["tables.py", "--check"])
    assert tables.main() == 0
    (root / "docs" / "results.md").write_text(text.replace("60.0", "66.0"))
    assert tables.main() == 1
    assert "results.md" in capsys.readouterr().err
    assert "66.0" in (root / "docs" / "results.md").read_text()  # a check writes nothing


def test_goals_that_were_not_reached_stay_empty():
    def run(recipe, *accuracies):
        seconds = [10.0 * (epoch + 1) for epoch in range(len(accuracies))]
        return {"recipe": recipe, "curves": {"train_seconds": seconds, "target_accuracy": list(accuracies)}}

    rows = [run("fast", 0.9, 0.97), run("fast", 0.8, 0.96), run("fast", 0.8, 0.9), {"recipe": "fast"}]
    head, _, line = speed_tables.speed_table({"rows": rows})
    assert head == "| recipe | seconds to 87 % | seconds to 97 % | seconds to 98.5 % | n |"
    assert line == "| `fast` | 20 (10 to 20) | 20 (20 to 20, 1 of 3 runs) |  | 3 |"


def test_evidence_sizes_and_sweeps_have_one_line_each():
    evidence = {"what": "epoch: class_ami", "same": 95.0, "other": 94.5, "difference": 0.5, "half_width": 0.75}
    _, formatted = TABLES["split"]
    assert formatted({"summary": [evidence]})[2:] == ["| epoch: class ami | 95.00 | 94.50 | +0.50 ± 0.75 |"]
    first = {"images": 1000, "epoch_seconds": 2.0, "peak_mib": 700.4}
    second = first | {"images": 2000, "time_over_images": 1.02, "memory_over_data": 0.98}
    sizes = speed_tables.scaling_table({"rows": [first, second]})
    assert sizes[2:] == ["| 1,000 | 2.0 | 700 |  |  |", "| 2,000 | 2.0 | 700 | 1.02 | 0.98 |"]
    gains = {"pairs - neither": [0.01, 0.01], "both - pairs": [-0.1, 0.1]}
    information = {"task": "t", "label_shift": True, "others": "none", "unit": "pairs", "runs": 4, "gains": gains}
    lines = gain_tables.informations_table({"summary": [information | {"neither": [0.5, 0.5]}]})
    assert "| neither | image-image - neither | both - image-image | n |" in lines[0]
    some = "15 % of half the classes"
    assert lines[2:] == [f"| t | {some} | none | 50.0 ± 0.0 | **+1.0 ± 0.0** | +0.0 ± 127.1 | 2 (pairs, 4 runs) |"]
    sweep = {"task": "t", "recipe": "r", "trials": 40, "pruned": 33, "chosen_accuracy": 0.9, "best_accuracy": 0.95}
    sweep |= {"regret": 0.05, "default_accuracy": 0.92, "hours": 0.285}
    lines = accuracy_tables.sweep_table({"rows": [sweep]})
    assert lines[2:] == ["| t | r | 40 (33 pruned) | 90.0 | 95.0 | 5.0 | 92.0 | 0.28 |"]
    accuracies = {("new", 0): 0.5, ("old", 0): 0.25, ("new", 1): 0.5, ("old", 1): 0.25}
    rows = [{"variant": "v", "recipe": one, "seed": n, "target_accuracy": x} for (one, n), x in accuracies.items()]
    head, _, *lines = gain_tables.variants_table({"rows": rows})
    assert head == "| variant | `old` | `new` | `new` - `old` | n |"
    assert lines == ["| v | 25.0 ± 0.0 | 50.0 ± 0.0 | **+25.0 ± 0.0** | 2 |"]
    accuracies = {("fast", 0): 0.5, ("no-dann", 0): 0.25, ("fast", 1): 0.75, ("no-dann", 1): 0.5}
    rows = [{"variant": "v", "recipe": one, "seed": n, "target_accuracy": x} for (one, n), x in accuracies.items()]
    fast, without = gain_tables.ablation_table({"rows": rows})[2:]
    assert fast.endswith(" |  | 2 |")
    assert without == "| without the domain discriminator | 37.5 ± 158.8 | **-25.0 ± 0.0** | 2 |"


def test_own_images_are_followed_by_loading_times():
    timing = {"name": "read and decode", "images": 70000, "seconds": 5.04, "images_per_second": 13889}
    found = results_of(rows_of("best", [0.5], "mnist-to-mnistm"), timings=[timing])
    lines = accuracy_tables.own_images_table(found)
    assert [line.split(" | ")[:3] for line in lines[2:3]] == [["| mnist-to-mnistm", "best", "**50.0**"]]
    assert lines[-1] == "| read and decode | 70,000 | 5.0 | 13,889 |"


def test_a_group_of_settings_is_named_with_what_differs_from_its_own_defaults():
    @dataclass(frozen=True)
    class Views:
        noise: float = 0.5
        colour: float = 1.0

    @dataclass(frozen=True)
    class Config:
        weight: float = 2.0
        views: Views = Views()
        others: Views = Views(noise=0.0)

    assert method_tables.settings(Config()) == ["`weight` 2.0", "`views`", "`others` (`noise` 0.0)"]


@pytest.mark.parametrize(
    ("docstring", "source"),
    [
        (
            'Adds.\n\n    Source: Li et al., "A title",\n    ICML 2020, eq. 2 and 3. The authors\' code differs.',
            "ICML 2020, eq. 2 and 3.",
        ),
        (
            "Adds.\n\n    Sources: SHOT (Liang et al., ICML 2020), here fixed.",
            "SHOT (Liang et al., ICML 2020), here fixed.",
        ),
        ("Adds what the source domain has.", ""),
    ],
)
def test_the_source_of_a_docstring_is_one_sentence(docstring, source):
    assert method_tables.source_of(docstring).endswith(source)
    assert bool(method_tables.source_of(docstring)) == bool(source)


def test_every_table_can_be_made_from_the_committed_results():
    for name in TABLES:
        assert with_origin(name).count("\n| ") >= 2, name


def test_a_benchmark_in_rounds_has_medians_ranges_and_whether_a_requirement_is_met(root):
    row = {"name": "a step", "case": "ours", "value": 17.84, "unit": "ms", "n": 5, "min": 17.1, "max": 18.0}
    rows = [row, row | {"n": 1, "required": ">= 20", "met": False}]
    (root / "results" / "busy.json").write_text(json.dumps(results_of(rows)))
    text = with_origin("busy")
    assert "| a step | ours | 17.8 ms | 17.1 to 18 | 5 |  |" in text
    assert "| a step | ours | 17.8 ms |  | 1 | >= 20: **not met** |" in text


def test_a_thousand_and_more_is_written_out():
    row = {"name": "peak memory", "case": "", "value": 1614.32, "unit": "MiB", "n": 1}
    assert speed_tables.measured_cells(row)[2] == "1,614 MiB"


def test_a_benchmark_without_results_is_said_to_be_not_measured(root):
    assert with_origin("busy") == "Not measured yet: results/busy.json does not exist.\n"
