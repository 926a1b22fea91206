"""The README's picture compares every system with its own network, trained on the source alone."""

from __future__ import annotations

import json

import pytest

from mutualign.recipes import load_recipe
from tests.tools.test_tables import results_of, rows_of
from tools import pictures_trained, results
from tools.results import OFFICE31


def test_the_baseline_of_fast_is_its_own_network_trained_on_the_source_alone():
    assert load_recipe(str(pictures_trained.BASELINE)).digest == load_recipe("fast").source_only().digest


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Results with the published network's source only too, which is another one than that of `fast`."""
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(results, "ROOT", tmp_path)
    photos = [
        row
        for pair in OFFICE31
        for recipe, accuracy in (("photos_source_only", 0.8), ("photos", 0.9))
        for row in rows_of(recipe, [accuracy], f"office31:{pair}")
    ]
    digits = {"source_only": [0.1], "source-only-fast": [0.5, 0.7], "fast": [0.9]}
    found = {
        "digits": [row for recipe, targets in digits.items() for row in rows_of(recipe, targets, "digits")],
        "source-only-fast": rows_of("source-only-fast", [0.6], "mnist-mnistm"),
        "headline": rows_of("fast", [0.97, 0.99], "mnist-mnistm"),
        "office31": photos,
    }
    for name, rows in found.items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(results_of(rows)))


@pytest.mark.usefixtures("measured")
def test_every_gain_is_over_the_same_network_at_the_last_epoch():
    shown = [accuracy for pair in pictures_trained.gains().values() for accuracy in pair]
    assert shown == pytest.approx([60, 90, 60, 98, 80, 90])


@pytest.mark.usefixtures("measured")
def test_a_system_without_results_is_an_error_and_no_point_of_the_picture():
    with pytest.raises(ValueError, match="mean"):
        pictures_trained.mean("digits", "best", "digits")
