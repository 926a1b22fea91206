"""Complete runs whose files were changed: every reader returns, or raises MutualignError that names the file."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutualign.errors import MutualignError
from mutualign.evaluation.selection import rank
from mutualign.io.text import parse_toml
from mutualign.runs.checkpoints import EpochInfo
from mutualign.runs.estimates import estimate_runs
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import curves
from mutualign.runs.predictor import Predictor
from mutualign.runs.rows import rows_of
from mutualign.runs.statistics import summarise

WRONG = [None, True, -1, 0, 10**30, 1.5, float("nan"), "", "text", [], [[]], {}, {"a": 1}]


def places(value, path=()):
    """The paths of all values inside plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from places(one, (*path, key))


def changed(value, path, new):
    """Plain data with another value at a path; the value is removed if `new` is Ellipsis."""
    if not path:
        return None if new is ... else new
    value = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is ...:
        del value[path[0]]
    else:
        value[path[0]] = changed(value[path[0]], path[1:], new)
    return value


def read_everything(path):
    """What show, select, estimate, report, compare and predict read of a run."""
    run = RunFolder.open(path)
    config, records, result = run.config(), run.metrics(), run.require_result()
    summarise(rows_of(config.recipe, run))
    curves(records)
    rank({str(path): records}, "combined")
    estimate_runs([run])
    Predictor.load(path)
    return [(stage.last, stage.selected, stage.oracle) for stage in result.stages]


def fault_of(path):
    """The error of reading everything, if there is one that a user can act on; any other one is raised."""
    try:
        read_everything(path)
    except MutualignError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def damaged(whole, tmp_path_factory):
    """A copy of the complete run, the plain data of its three text files, and their writers."""
    import tomli_w

    path = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(whole.path, path)
    config = parse_toml((path / "config.toml").read_text(encoding="utf-8"))
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))

    def write(name, data):
        if name == "config.toml":
            text = tomli_w.dumps(data)
        else:
            text = json.dumps(data) if name == "result.json" else "".join(json.dumps(one) + "\n" for one in data)
        (path / name).write_text(text, encoding="utf-8")

    return path, {"config.toml": config, "metrics.jsonl": records, "result.json": result}, write


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_value_of_the_wrong_kind_anywhere_is_read_or_refused_with_its_file(damaged, data):
    path, files, write = damaged
    name = data.draw(st.sampled_from(sorted(files)))
    where = data.draw(st.sampled_from([place for place in places(files[name]) if place]))
    new = data.draw(st.sampled_from([*WRONG, ...]))
    try:
        write(name, changed(files[name], where, new))
    except (TypeError, ValueError, AttributeError):
        return  # no such TOML or JSON Lines
    try:
        assert str(path) in (fault_of(path) or str(path))
    finally:
        write(name, files[name])


def test_the_run_that_was_not_changed_is_read(damaged):
    assert len(read_everything(damaged[0])) == 2


# Tensors --------------------------------------------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_refused_by_prediction(copied):
    weights, info = copied.checkpoints.load_weights(1, "selected")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = float("nan")
    copied.checkpoints.save_weights(1, "selected", weights, info)
    with pytest.raises(MutualignError, match=rf"stage-1-selected\.safetensors: {name} is not finite"):
        Predictor.load(copied.path)
    assert Predictor.load(copied.path, "last").result.seed == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda outputs: outputs["target_logits"].fill_(float("nan")), "target_logits is not finite"),
        (lambda outputs: outputs.pop("source_labels"), "not the outputs of a classifier"),
        (lambda outputs: outputs["source_labels"].fill_(3), "not the outputs of a classifier"),
        (lambda outputs: outputs.update(target_logits=torch.zeros(5, 2)), "not the outputs of a classifier"),
        (lambda outputs: outputs.clear(), "it has no tensors"),
    ],
)
def test_outputs_that_are_not_finite_or_of_another_kind_are_refused_by_estimates(copied, change, message):
    outputs, info = copied.checkpoints.load_outputs(1, "selected")
    change(outputs)
    copied.checkpoints.save_outputs(1, "selected", outputs, info)
    with pytest.raises(MutualignError, match=rf"stage-1-selected-outputs\.safetensors: .*{message}"):
        estimate_runs([copied])


def test_outputs_without_the_default_score_are_refused_by_estimates(copied):
    outputs, _ = copied.checkpoints.load_outputs(1, "selected")
    copied.checkpoints.save_outputs(1, "selected", outputs, EpochInfo(1, 2, {"mano": 1.0}))
    with pytest.raises(MutualignError, match="not scored by combined"):
        estimate_runs([copied])


# Resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["the file", "an epoch"])
def test_a_run_does_not_resume_without_the_records_of_its_epochs(copied, tiny_task, lost):
    (copied.path / "result.json").unlink()
    path = copied.path / "metrics.jsonl"
    if lost == "the file":
        path.unlink()
    else:
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(MutualignError, match=r"metrics\.jsonl: epochs by stage are .*, expected \[2, 2\]"):
        Experiment(copied.config().recipe, tiny_task, 0, copied).run()
    assert copied.result() is None


@pytest.mark.parametrize(
    ("info", "message"),
    [({"stage": 5, "steps_done": 1, "train_seconds": 0.0}, "stage 5"), ({"stage": "x"}, "no intact")],
)
def test_a_checkpoint_of_another_run_or_kind_is_refused(copied, tiny_task, info, message):
    (copied.path / "result.json").unlink()
    for name in ("last", "last-1"):
        copied.checkpoints.save(name, copied.checkpoints.load(name)[0], info)
    with pytest.raises(MutualignError, match=message):
        Experiment(copied.config().recipe, tiny_task, 0, copied).run()
