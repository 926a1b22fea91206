"""The benchmark of runs on photos: what it makes, and which numbers meet what is required. No test measures a time."""

from __future__ import annotations

import photos

from mutualign.data.folders.listing import list_labelled, list_unlabelled
from mutualign.data.folders.vectors import read_vectors

MEASURED = {
    "features": {"photos_per_second": 61.0, "cpu_seconds": 0.03},
    "run": {"first_step": 3.1, "cpu_seconds": 2.9, "train_seconds": 9.0, "whole": 20.0},
    "memory": {"peak_mib": 2048.0},
}


def test_rows_say_what_is_required_and_whether_it_is_met(run_benchmark, monkeypatch):
    called = []

    def call(settings, part, folder, *more):
        labelled, target = list_labelled(folder / "source"), list_unlabelled(folder / "target")
        assert (len(labelled), labelled.class_names(), len(target)) == (6, ("dark", "light"), 6)
        source, vectors = (read_vectors(folder / name, name == "source.npz") for name in ("source.npz", "target.npy"))
        assert (source.x.shape, vectors.x.shape, len(set(source.labels))) == ((30, 1280), (30, 1280), 10)
        called.append((part, *more))
        return MEASURED[part]

    monkeypatch.setattr(photos, "call", call)
    results, _ = run_benchmark("photos.py", "--photos", 6, "--vectors", 30)
    assert [part for part, *_ in called] == ["features", "features", "run", "run", "memory"]
    found = {(row["name"], row["case"]): (row["value"], row.get("met")) for row in results["rows"]}
    assert found[photos.FEATURES, "one view"] == (61.0, True)
    assert found[photos.FEATURES, "six views, the recipe's"] == (61.0, None)
    assert found["processor time of a photo", "one view"] == (30.0, None)
    assert found[photos.FIRST_STEP, "second run"] == (3.1, False)
    assert found["processor time to the first step", "second run"] == (2.9, None)
    assert found["training of the head", "second run"] == (9.0, True)
    assert found["peak memory", "features from a file"] == (2048.0, True)
