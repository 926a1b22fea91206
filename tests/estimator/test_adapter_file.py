"""Saved adapters: what is loaded is what was saved, and files that are damaged, strange or of another version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mutualign.errors import MutualignError
from mutualign.estimator import DomainAdapter

pytestmark = pytest.mark.filterwarnings("ignore::mutualign.estimator.AlarmWarning")


def fitted(labels=("cat", "dog"), **params):
    rng = np.random.default_rng(0)
    y = np.asarray(labels)[np.arange(40) % len(labels)]
    source, target = rng.normal(size=(2, 40, 3))
    settings = ("stages.0.epochs=1", "stages.0.epoch_steps=2")
    return DomainAdapter("dann", overrides=settings, **params).fit(source, y, target), target


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    fitted()[0].save(path)
    return path


def rewritten(saved, path, header=None, metadata=None, weights=None):
    """The saved file with something else in it, and without the hash that would tell."""
    with safe_open(saved, framework="pt") as file:
        kept = file.metadata()
    del kept["sha256"]
    changed = json.loads(kept["header"]) | (header or {})
    save_file(load_file(saved) | (weights or {}), path, {**kept, "header": json.dumps(changed), **(metadata or {})})
    return path


@pytest.mark.parametrize("labels", [("cat", "dog", "Äsche"), (3, 7), (1.0, 2.0), (False, True)])
def test_what_is_loaded_is_what_was_saved(tmp_path, labels):
    adapter, target = fitted(labels, random_state=np.int64(5), validation_fraction=0.2)
    adapter.save(tmp_path / "adapter.safetensors")
    again = DomainAdapter.load(str(tmp_path / "adapter.safetensors"))
    assert again.get_params() == adapter.get_params()
    assert again.classes_.tolist() == adapter.classes_.tolist()
    assert again.classes_.dtype.kind == adapter.classes_.dtype.kind
    np.testing.assert_array_equal(again.predict_proba(target), adapter.predict_proba(target))
    np.testing.assert_array_equal(again.transform(target), adapter.transform(target))
    assert (again.label_free_score_, again.result_) == (adapter.label_free_score_, adapter.result_)
    assert (again.recipe_, again.n_features_in_) == (adapter.recipe_, adapter.n_features_in_)


def test_a_file_that_is_not_one_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    with pytest.raises(MutualignError, match=r"broken.safetensors: not a readable"):
        DomainAdapter.load(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(MutualignError, match=r"broken.safetensors: not a readable"):
        DomainAdapter.load(path)
    save_file({}, path)
    with pytest.raises(MutualignError, match=r"broken.safetensors: not a saved DomainAdapter"):
        DomainAdapter.load(path)


def test_a_file_that_was_cut_off_is_named(saved, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(MutualignError, match=r"cut.safetensors: not a readable"):
        DomainAdapter.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"mutualign_adapter": "3"}}, "format 3, this version reads 1 to 2: use a newer mutualign"),
        ({"metadata": {"mutualign_adapter": "0"}}, "format 0, this version reads 1 to 2: save it again"),
        ({"metadata": {"header": "{"}}, "not a readable DomainAdapter"),
        ({"metadata": {"header": "[]"}}, "not a readable DomainAdapter"),
        ({"header": {"params": {"depth": 3}}}, "unknown parameter depth: use a newer mutualign"),
        ({"header": {"params": 3}}, "not a readable DomainAdapter"),
        ({"header": {"shape": [3, 1, 1 << 40]}}, "no shape of images"),
        ({"header": {"shape": [1 << 20, 1 << 20, 1]}}, "no shape of images"),
        ({"header": {"shape": [4, 1, 1]}}, "weights do not belong to the network"),
        ({"header": {"classes": {"kind": "U", "values": ["cat", "cat"]}}}, "two or more different classes"),
        ({"header": {"classes": {"kind": "U", "values": ["a", "b", "c"]}}}, "weights do not belong to the network"),
        ({"header": {"classes": {"kind": "?", "values": ["a", "b"]}}}, "classes.kind: invalid enum value"),
        ({"header": {"recipe": {"name": "x"}}}, "stages"),
        ({"header": {"label_free_score": None}}, "label_free_score: expected float, got null"),
        ({"header": {"result": {}}}, "result: missing the key"),
    ],
)
def test_a_header_that_does_not_hold_together_is_refused(saved, tmp_path, changes, message):
    path = rewritten(saved, tmp_path / "changed.safetensors", **changes)
    with pytest.raises(MutualignError, match=f"changed.safetensors.*{message}"):
        DomainAdapter.load(path)


def test_a_file_of_format_1_predicts_what_it_did():
    adapter = DomainAdapter.load(Path(__file__).with_name("format-1.safetensors"))
    X = [[0.7875882217058694, 0.844078680578592, 0.07559361074288512], [-1.4267738509897323, -0.1350451, -0.76951465]]  # noqa: N806
    expected = [[0.48852258920669556, 0.5114774107933044], [0.47192221879959106, 0.5280777215957642]]
    np.testing.assert_allclose(adapter.predict_proba(X), expected, atol=1e-6)
    assert adapter.classes_.tolist() == ["cat", "dog"]
    assert adapter.recipe_.stages[0].method == adapter.result_.stages[0].method == "dann"
    assert adapter.get_params()["overrides"] == ("stages.0.epochs=1", "stages.0.epoch_steps=2")
    assert {alarm.name for alarm in adapter.alarms_} == {alarm.name for alarm in adapter.result_.alarms}


def test_weights_that_are_not_finite_are_refused(saved, tmp_path):
    name, weight = next((name, weight) for name, weight in load_file(saved).items() if weight.is_floating_point())
    path = rewritten(saved, tmp_path / "nan.safetensors", weights={name: weight * float("nan")})
    with pytest.raises(MutualignError, match=r"nan.safetensors: .*the weight \S+ is not finite"):
        DomainAdapter.load(path)


def test_a_place_that_cannot_be_written_is_named(saved, tmp_path):
    adapter = DomainAdapter.load(saved)
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "adapter", "/dev/null"):
        with pytest.raises(MutualignError, match=f"{path}: cannot be written"):
            adapter.save(path)
    adapter.save(tmp_path / "new" / "adapter")
    adapter.save(tmp_path / "new" / "adapter")  # replaced
