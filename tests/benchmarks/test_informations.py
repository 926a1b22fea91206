"""The ablation of the two mutual informations: its recipes, its gains, and that it resumes."""

from __future__ import annotations

import informations
import pytest
from label_shift import shifted

from mutualign.data.datasets import find_task
from mutualign.methods import METHODS

NONE = {"none": informations.OTHERS["none"]}


def row(terms, seed, accuracy, task="digits"):
    case = {"task": task, "label_shift": False, "others": "none", "terms": terms, "seed": seed}
    return case | {"target_accuracy": accuracy}


def test_each_case_has_the_weights_of_its_terms_and_photos_train_on_features():
    for terms, (pairs, labels) in {"neither": (0, 0), "pairs": (1, 0), "labels": (0, 1), "both": (1, 1)}.items():
        options = informations.recipe_of("digits", "reversal and self-training", terms, 7).stages[0].options
        assert (options.mi_weight, options.information_weight) == (pairs, labels)
        assert (options.self_training_weight, options.domain.weight) == (1.0, 0.3)
    with informations.method_on_features():
        recipe = informations.recipe_of("office31:amazon-webcam", "none", "both", 7)
        assert (recipe.features, recipe.stages[0].method) == ("efficientnet_lite0", informations.ON_FEATURES)
        assert (recipe.stages[0].options.self_training_weight, recipe.stages[0].options.domain.weight) == (0, 0)
    assert informations.ON_FEATURES not in METHODS


def test_gains_are_of_the_same_runs_by_seed_and_for_photos_by_pair():
    accuracies = {"neither": (0.5, 0.6), "pairs": (0.6, 0.6), "labels": (0.75, 0.8), "both": (0.8, 0.8)}
    rows = [row(terms, seed, value) for terms, values in accuracies.items() for seed, value in enumerate(values)]
    for terms, value in {"neither": 0.1, "pairs": 0.2, "labels": 0.4, "both": 0.4}.items():
        rows += [row(terms, 0, value, "office31:amazon-webcam"), row(terms, 0, 2 * value, "office31:dslr-webcam")]
        rows.append(row(terms, 1, 0.3, "office31:amazon-webcam"))
    rows.append(row("neither", 1, 0.9, "office31:dslr-webcam"))  # without the other terms
    digits, photos = informations.summarise(rows)
    assert [(line["task"], line["unit"], line["runs"]) for line in (digits, photos)] == [
        ("digits", "seeds", 2),
        ("office31", "pairs", 3),
    ]
    assert photos["neither"] == [pytest.approx(0.2), pytest.approx(0.2)]
    expected = {
        "pairs - neither": [0.1, 0.0],
        "labels - neither": [0.25, 0.2],
        "both - labels": [0.05, 0.0],
        "both - pairs": [0.2, 0.2],
    }
    assert digits["gains"] == {name: pytest.approx(values) for name, values in expected.items()}
    assert photos["gains"]["labels - neither"] == [pytest.approx(0.15), pytest.approx(0.6)]


def test_under_label_shift_half_of_the_classes_keep_their_images_in_training_and_test(tmp_path):
    task = find_task("digits").load(tmp_path)
    few = shifted(task, 0.15)
    for before, after in ((task.target_train, few.target_train), (task.target_test, few.target_test)):
        counts, kept = before.hidden_labels.bincount(), after.hidden_labels.bincount()
        assert kept.tolist() == [*counts[:5].tolist(), *(round(0.15 * count) for count in counts[5:].tolist())]
    assert few.identity != task.identity
    assert few.source_train is task.source_train


def test_a_second_call_trains_only_what_is_missing(run_benchmark, monkeypatch):
    monkeypatch.setattr(informations, "OTHERS", NONE)
    monkeypatch.setattr(informations, "TERMS", {terms: informations.TERMS[terms] for terms in ("neither", "both")})
    monkeypatch.setattr(informations, "summarise", lambda rows: [])
    monkeypatch.setattr(informations, "BATCH", 20)
    options = ["--tasks", "digits@40", "--steps", "1", "--seeds"]
    results, _ = run_benchmark("informations.py", *options, "1")
    seen = [(one["label_shift"], one["terms"], one["seed"]) for one in results["rows"]]
    assert seen == [(shift, terms, 0) for shift in (False, True) for terms in ("neither", "both")]
    monkeypatch.setattr(informations, "measure", lambda case, task, steps: case | {"new": True})
    again, _ = run_benchmark("informations.py", *options, "2")
    assert again["rows"][:4] == results["rows"]
    assert [one["new"] for one in again["rows"][4:]] == [True] * 4
