"""What a run's page and `show` say to do next."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from mutualign.data.task import ARRAYS
from mutualign.evaluation.verdict import Kind, Range, Verdict
from mutualign.runs.folder import RunFolder
from mutualign.runs.next_steps import LABELS, compare_command, contradiction, current_alarms, few_labels, next_steps


@pytest.fixture
def of_arrays(copied):
    """A run of a DomainAdapter."""
    config = copied.path / "config.toml"
    config.write_text(config.read_text().replace('task = "tiny"', f'task = "{ARRAYS}"'))
    return copied


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("compared_with", ["source_only", None])
def test_after_every_verdict_there_is_something_to_do(whole, kind, labels, compared_with):
    truth = {"true_accuracy": 0.9, "true_gain": Range(0.1, -0.1, 0.3) if compared_with else None} if labels else {}
    verdict = Verdict(kind, "A sentence.", "no target labels", compared_with=compared_with, **truth)
    steps = next_steps(verdict, whole, alarms=False)
    assert steps
    assert any("--label-these" in step for step in steps) != labels
    assert len(next_steps(verdict, whole, alarms=True)) == len(steps) + 1
    assert any("`mutualign compare --recipes " in step for step in steps) == (
        kind == "cannot tell" and (labels or not compared_with)
    )


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("compared_with", ["source_only", None])
def test_after_a_run_on_arrays_no_command_is_advised_that_needs_its_images(of_arrays, kind, compared_with):
    verdict = Verdict(kind, "A sentence.", "no target labels", compared_with=compared_with)
    steps = " ".join(next_steps(verdict, of_arrays, alarms=False))
    assert "`DomainAdapter.score` gives the accuracy" in steps
    assert "--label-these" not in steps
    assert "mutualign compare" not in steps


def test_an_estimate_below_the_lower_bound_is_called_a_contradiction_that_labels_decide(whole, of_arrays):
    said = contradiction(0.65, 0.36, whole, labelled=False)
    assert "contradict each other: at least one of them is wrong" in said
    assert said.endswith(f"Labelling 50 images decides: `mutualign report {whole.path} --label-these 50`.")
    assert contradiction(0.65, 0.36, of_arrays, labelled=False).endswith("Labelling 50 images decides.")
    assert contradiction(0.65, 0.36, whole, labelled=True).endswith("The target labels decide.")
    for bound, estimate in ((0.36, 0.65), (0.5, 0.5), (None, 0.5), (0.5, None)):
        assert contradiction(bound, estimate, whole, labelled=False) == ""


def test_where_the_source_is_not_learnt_nothing_comes_before_learning_it(whole):
    verdict = Verdict("cannot tell", "A sentence.", "no target labels", source_learnt=False)
    (step,) = next_steps(verdict, whole, alarms=False)
    assert step.startswith("Train until the source is learnt")


@pytest.mark.parametrize("compared_with", [None, "source_only"])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_harm_is_an_alarm_also_if_the_source_only_run_came_later(whole, kind, compared_with):
    result = replace(whole.require_result(), alarms=[], compared_with=compared_with)
    verdict = Verdict(kind, "A sentence.", "no target labels", compared_with="source_only")
    found = [(alarm.name, alarm.stage) for alarm in current_alarms(result, verdict)]
    later = kind == "made it worse" and compared_with is None  # otherwise the end of the run has raised it
    assert found == ([("negative transfer", 1)] if later else [])


@pytest.mark.parametrize(
    ("kind", "compared_with", "words"),
    [
        ("helped", "source_only", "from 30 or more that are drawn at random, and one of the gain over source only"),
        ("cannot tell", None, "; of the gain too, if source only is trained before."),
        ("baseline", None, "valid whatever the errors."),
    ],
)
def test_labels_give_the_gain_only_where_there_is_a_source_only_run(whole, kind, compared_with, words):
    verdict = Verdict(kind, "A sentence.", "no target labels", compared_with=compared_with)
    found = few_labels(verdict, whole)
    assert found.startswith(f"Label {LABELS} images: `mutualign report {whole.path} --label-these 50` chooses them")
    assert words in found
    assert ("gain" in found) == (kind != "baseline")


def test_the_command_that_compares_a_run_has_its_data_and_a_seed_more_than_its_own(copied, tmp_path):
    config = copied.path / "config.toml"
    config.write_text('data_folder = "my data"\n' + config.read_text().replace("seed = 0", "seed = 6"))
    elsewhere = f"--recipes {config} --task tiny --data 'my data' --seeds 7"
    assert compare_command(copied) == f"mutualign compare {elsewhere}"
    usual = tmp_path / "my runs" / "tiny" / copied.config().recipe.name / "seed-6"
    usual.parent.mkdir(parents=True)
    copied.path.rename(usual)
    command = compare_command(RunFolder(usual), 9)
    assert command == (
        f"mutualign compare --recipes '{usual}/config.toml' --task tiny --data 'my data' --seeds 9 "
        f"--out '{tmp_path}/my runs'"
    )
