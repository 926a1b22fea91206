from __future__ import annotations

import json

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
        ({"metadata": {"mutualign_adapter": "2"}}, "format 2, this mutualign reads 1: use a newer mutualign"),
        ({"metadata": {"mutualign_adapter": "0"}}, "format 0, this mutualign reads 1: save it again"),
        ({"metadata": {"header": "{"}}, "not a readable DomainAdapter"),
        ({"metadata": {"header": "[]"}}, "not a readable DomainAdapter"),
        ({"header": {"params": {"depth": 3}}}, "unknown parameter depth: use a newer mutualign"),
        ({"header": {"params": 3}}, "not a readable DomainAdapter"),
        ({"header": {"shape": [3, 1, 1 << 40]}}, "no shape of images"),
        ({"header": {"shape": [1 << 20, 1 << 20, 1]}}, "no shape of images"),
        ({"header": {"shape": [4, 1, 1]}}, "weights are not those of the network"),
        ({"header": {"classes": {"kind": "U", "values": ["cat", "cat"]}}}, "no list of classes"),
        ({"header": {"classes": {"kind": "U", "values": ["a", "b", "c"]}}}, "weights are not those of the network"),
        ({"header": {"classes": {"kind": "?", "values": ["a", "b"]}}}, "not a readable DomainAdapter"),
        ({"header": {"recipe": {"name": "x"}}}, "stages"),
        ({"header": {"label_free_score": None}}, "score or result"),
        ({"header": {"result": {}}}, "not a readable DomainAdapter"),
    ],
)
def test_a_header_that_does_not_hold_together_is_told(saved, tmp_path, changes, message, faults):
    path = rewritten(saved, tmp_path / "changed.safetensors", **changes)
    refused = pytest.raises(MutualignError, match=f"changed.safetensors.*{message}")
    with faults.injected("no code from files"), refused:
        DomainAdapter.load(path)


def test_weights_that_are_not_finite_are_told(saved, tmp_path):
    name, weight = next((name, weight) for name, weight in load_file(saved).items() if weight.is_floating_point())
    path = rewritten(saved, tmp_path / "nan.safetensors", weights={name: weight * float("nan")})
    with pytest.raises(MutualignError, match=r"nan.safetensors: a weight is not finite"):
        DomainAdapter.load(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    adapter, _ = fitted()
    with pytest.raises(MutualignError, match="missing/adapter: cannot be written"):
        adapter.save(tmp_path / "missing" / "adapter")
