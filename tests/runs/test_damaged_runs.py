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


def changes_of(tensor):
    """Other tensors of which none can stand for a kept one: of other axes, another type, other values."""
    yield tensor[None]
    if tensor.dtype == torch.int64:
        yield tensor.float()
        yield tensor - 1_000_000
    if tensor.is_floating_point():
        yield tensor.long()
        yield torch.full_like(tensor, float("nan"))


@pytest.mark.parametrize("kind", ["stage-1-selected-outputs", "review"])
def test_a_kept_tensor_that_is_missing_or_of_another_kind_is_refused_with_its_file_and_name(copied, kind):
    store = copied.checkpoints
    kept, info = store.load(kind)

    def read():
        return store.load_review(store.load_outputs(1, "selected")[0])

    assert read().keys() >= {"labels", "confusion", "source_samples"}
    for name, tensor in kept.items():
        others = {key: value for key, value in kept.items() if key != name}
        for changed in (others, *(others | {name: change} for change in changes_of(tensor))):
            if changed.get(name, tensor).numel() or name not in changed:  # there may be no confident right one
                store.save(kind, changed, info)
                with pytest.raises(MutualignError, match=rf"{kind}\.safetensors: .*\b{name}\b.*\n  hint: "):
                    read()
    store.save(kind, {}, info)
    with pytest.raises(MutualignError, match=rf"{kind}\.safetensors: it has no tensor"):
        read()


def test_a_review_of_other_images_than_the_outputs_is_refused(copied):
    store = copied.checkpoints
    outputs, _ = store.load_outputs(1, "selected")
    fewer = outputs | {
        "target_logits": outputs["target_logits"][:-1],
        "target_features": outputs["target_features"][:-1],
    }
    with pytest.raises(MutualignError, match=r"review\.safetensors: labels: int64 of shape \[20\].*target = 19"):
        store.load_review(fewer)
    tensors, _ = store.load("review")
    store.save("review", tensors, {"class_names": ["left", "right"]})
    with pytest.raises(MutualignError, match=r"review\.safetensors: .*classes = 2"):
        store.load_review(outputs)


def test_estimates_refuse_outputs_with_labels_that_are_no_classes(copied):
    outputs, info = copied.checkpoints.load_outputs(1, "selected")
    copied.checkpoints.save_outputs(1, "selected", outputs | {"source_labels": outputs["source_labels"] + 3}, info)
    with pytest.raises(MutualignError, match=r"outputs\.safetensors: source_labels has values .* expected 0 to 2"):
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
