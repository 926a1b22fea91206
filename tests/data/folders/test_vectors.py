"""Feature vectors of any model from files: what is read, what is refused, and a run from start to prediction."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
import zipfile

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from mutualign.cli.compare import Compare
from mutualign.cli.console import PlainConsole
from mutualign.cli.options import OwnImagesOptions
from mutualign.cli.predict import Predict
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.folders.vectors import read_vectors
from mutualign.errors import MutualignError
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder
from mutualign.runs.loading import default_recipe, load_task, recipe_for
from mutualign.runs.predictor import Predictor
from mutualign.training.diagnosis import NotFinite
from mutualign.training.loop import Stopped
from tests.data.folders.images import write

WIDTH = 8
NAMES = np.array(["cat", "dog", "owl"])


def clusters(n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around three centres, and the numbers of the centres."""
    rng = np.random.default_rng(n)
    y = np.arange(n) % 3
    return (4 * np.eye(3, WIDTH)[y] + rng.normal(size=(n, WIDTH)) + shift).astype(np.float32), y


@pytest.fixture
def files(tmp_path):
    """source.npz with X and y, target.npy with X alone, test.npz with X and y."""
    x, y = clusters(60)
    np.savez(tmp_path / "source.npz", X=x, y=NAMES[y])
    np.save(tmp_path / "target.npy", clusters(45, 0.5)[0])
    x, y = clusters(30, 0.5)
    np.savez(tmp_path / "test.npz", X=x, y=NAMES[y])
    return tmp_path


def own(files, **changes) -> FolderTask:
    places = {"source": files / "source.npz", "target": files / "target.npy", "target_test": files / "test.npz"}
    return FolderTask(**(places | changes))


def as_parquet(path, x, y, lists: bool):
    features = {"X": x.tolist()} if lists else {f"x{number}": x[:, number] for number in range(x.shape[1])}
    parquet.write_table(pyarrow.table({**features, "y": y, "other": y}), path)
    return path


# Reading --------------------------------------------------------------------------------------------------------------


def test_every_format_gives_the_same_vectors_labels_and_identity(files):
    x, y = clusters(60)
    np.savez_compressed(files / "zipped.npz", X=x.astype(np.float64), y=NAMES[y].astype("S"), more=np.array([{}]))
    as_parquet(files / "lists.parquet", x, NAMES[y], lists=True)
    as_parquet(files / "columns.parquet", x, pyarrow.array(NAMES[y]).dictionary_encode(), lists=False)
    identities = set()
    for name in ("source.npz", "zipped.npz", "lists.parquet", "columns.parquet"):
        found = read_vectors(files / name, labelled=True)
        assert torch.equal(found.x, torch.from_numpy(x)), name
        assert found.labels == tuple(NAMES[y]), name
        identities.add(own(files, source=files / name).load().identity)
    assert len(identities) == 1
    assert read_vectors(files / "source.npz", labelled=False).labels is None


def test_columns_of_a_table_are_in_the_order_of_their_numbers(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(2, 12)
    table = {f"x{number}": x[:, number] for number in reversed(range(12))}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    assert read_vectors(tmp_path / "a.parquet", labelled=False).x.tolist() == x.tolist()


X, Y = clusters(6)
NAN, LARGE = X.copy(), X.astype(np.float64)
NAN[2, 3], LARGE[4, 1] = np.nan, 1e300
REFUSED = {
    "no y": ({"X": X}, 'no array "y"; it has: X'),
    "no X": ({"features": X, "y": Y}, 'no array "X"; it has: features, y'),
    "NaN": ({"X": NAN, "y": Y}, r"X\[2, 3\] is nan; values must be finite in float32 \(1 such"),
    "too large for float32": ({"X": LARGE, "y": Y}, r"X\[4, 1\] is 1e\+300"),
    "objects": ({"X": X.astype(object), "y": Y}, "X has the type object; expected numbers"),
    "mixed labels": ({"X": X, "y": np.array([1, "a", 2, 3, 4, 5], object)}, "y has the type object; expected text or"),
    "labels with fractions": ({"X": X, "y": Y / 2}, "y has the type float64; expected text or integers"),
    "complex": ({"X": X + 1j, "y": Y}, "X has the type complex64"),
    "one axis": ({"X": X[0], "y": Y}, r"X has the shape \[8\]; expected \[n, features\]"),
    "images": ({"X": X[:, :, None], "y": Y}, r"X has the shape \[6, 8, 1\]"),
    "no rows": ({"X": X[:0], "y": Y[:0]}, r"X has the shape \[0, 8\]"),
    "too few labels": ({"X": X, "y": Y[:5]}, r"y has the shape \[5\]; expected \[6\]"),
    "one-hot labels": ({"X": X, "y": np.eye(6, dtype=int)}, r"y has the shape \[6, 6\]"),
    "half a character": ({"X": X, "y": np.array(["a", "\ud800", "b", "a", "b", "a"])}, "a label in y is not UTF-8"),
    "an empty label": ({"X": X, "y": np.array(["a", " ", "b", "a", "b", "a"])}, r"y\[1\] is empty"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_arrays_that_cannot_be_trained_on_are_refused_with_file_cause_and_hint(tmp_path, fault):
    arrays, message = REFUSED[fault]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(MutualignError, match=rf"a\.npz: {message}(.|\n)*\n  hint:    "):
        read_vectors(tmp_path / "a.npz", labelled=True)


def test_tables_that_cannot_be_trained_on_are_refused_with_file_cause_and_hint(tmp_path):
    lists = X.tolist()
    for columns, message in (
        ({"X": [*lists[:5], lists[5][:3]], "y": Y}, r"rows of X have different lengths: \[8, 3\]"),
        ({"X": [*lists[:5], None], "y": Y}, "rows of X have different lengths"),
        ({"X": [*lists[:5], [*lists[5][:7], None]], "y": Y}, "X has 1 empty value"),
        ({"x0": X[:, 0], "x2": X[:, 2], "y": Y}, 'no column "x1", but x2'),
        ({"X": lists}, 'no column "y"'),
        ({"X": lists, "y": ["a", None, "b", "a", "b", "a"]}, "y has 1 empty value"),
        ({"X": lists, "y": Y / 2}, "y has the type double"),
        ({"X": ["a"] * 6, "y": Y}, "X has the type string"),
    ):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        with pytest.raises(MutualignError, match=rf"a\.parquet: {message}(.|\n)*\n  hint:    "):
            read_vectors(tmp_path / "a.parquet", labelled=True)


def test_damaged_files_and_pickles_are_refused_and_nothing_is_executed(files):
    class Bomb:
        def __reduce__(self):
            return (files.joinpath("executed").mkdir, ())

    whole = (files / "target.npy").read_bytes()
    shape = b"(45, 8)"
    assert shape in whole
    damaged = {
        "cut.npy": whole[:-1],
        "longer.npy": whole + b"0",
        "huge.npy": whole.replace(shape, b"(9999999999999, 8)"[:7] + b"", 1).replace(b"(999999", b"(10**9,"),
        "pickle.npy": pickle.dumps(Bomb()),
        "text.npz": b"no archive",
        "empty.npz": b"",
    }
    for name, content in damaged.items():
        (files / name).write_bytes(content)
    np.save(files / "bomb.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(files / "claims.npz", "w") as archive:  # a header of 80 GB, and no values
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (20_000_000_000, 1)}
        )
        archive.writestr("X.npy", stream.getvalue())
    for name in (*damaged, "bomb.npy", "claims.npz", "missing.npz"):
        with pytest.raises(MutualignError, match=rf"{name}: (.|\n)*\n  hint:    "):
            read_vectors(files / name, labelled=False)
    assert not (files / "executed").exists()
    with pytest.raises(MutualignError, match=r"target\.npy: has no labels y\n  hint:    save X and y in one file"):
        read_vectors(files / "target.npy", labelled=True)


# The task -------------------------------------------------------------------------------------------------------------


def test_a_task_of_vectors_holds_out_a_tenth_of_each_class_and_hides_target_labels(files):
    x, y = clusters(60)
    task = own(files).load()
    assert (task.name, task.class_names, task.shape) == ("source-to-target", ("cat", "dog", "owl"), (WIDTH, 1, 1))
    assert torch.bincount(task.source_test.labels).tolist() == [2, 2, 2]
    parts = (task.source_train.images, task.source_test.images)
    rows = torch.cat([one.take(torch.arange(len(one)), 0) for one in parts]).flatten(1)
    labels = torch.cat([task.source_train.labels, task.source_test.labels])
    order = [x.tolist().index(row) for row in rows.tolist()]
    assert sorted(order) == list(range(60))
    assert labels.tolist() == y[order].tolist()
    assert task.target_train.hidden_labels is None
    assert task.target_test.hidden_labels.tolist() == clusters(30)[1].tolist()
    assert len(own(files, source_test=files / "test.npz").load().source_train) == 60
    assert "source test: 6 vectors, held out of the source" in task.notes


def test_the_identity_covers_values_labels_and_split(files):
    x, y = clusters(60)
    np.savez(files / "value.npz", X=np.where(np.arange(60)[:, None] == 7, x + 1, x), y=NAMES[y])
    np.savez(files / "label.npz", X=x, y=NAMES[np.roll(y, 1)])
    tasks = [own(files), own(files, source_test=files / "test.npz"), own(files, target_test=None)]
    tasks += [own(files, source=files / name) for name in ("value.npz", "label.npz")]
    assert len({task.load().identity for task in tasks}) == 5


def test_files_that_do_not_go_together_are_refused(files):
    x, y = clusters(60)
    np.save(files / "narrow.npy", x[:, :5])
    np.savez(files / "one.npz", X=x, y=np.full(60, 3))
    np.savez(files / "rare.npz", X=x, y=np.where(np.arange(60) == 5, "rare", NAMES[y]))
    np.savez(files / "other.npz", X=x, y=np.where(y == 0, "bird", NAMES[y]))
    write(files / "images" / "cat" / "1.png")
    for changes, message in (
        ({"target": files / "narrow.npy"}, r"narrow\.npy: vectors of 5 values; those of .*source\.npz have 8\n  hint"),
        ({"source": files / "one.npz"}, r'one\.npz: only the class "3"'),
        ({"source": files / "rare.npz"}, r'rare\.npz: class "rare" has 1 example'),
        ({"target_test": files / "other.npz"}, r'other\.npz: class "bird" is not among the source\'s'),
        ({"target": files / "images"}, r"images: not a file of feature vectors .*\n  hint: .*or both images"),
        ({"source": files / "images"}, r"images: not a file of feature vectors"),
        ({"image_size": 8}, r"source\.npz: feature vectors have no image size"),
    ):
        with pytest.raises(MutualignError, match=message):
            own(files, **changes).load()


# A run ----------------------------------------------------------------------------------------------------------------

SHORT = ("stages.0.epochs=2", "stages.0.epoch_steps=5", "stages.0.batch_size=16")


def test_recipes_for_photos_train_on_vectors_without_features_and_others_are_refused(files):
    task = own(files)
    assert default_recipe(task) == "photos"
    recipe = recipe_for(task, "photos")
    assert (recipe.name, recipe.features, recipe.views) == ("photos", "", 1)
    assert recipe_for(None, "photos").features == "efficientnet_lite2"
    with pytest.raises(MutualignError, match=r"recipe best turns and recolours images; .*source\.npz holds feature"):
        recipe_for(task, "best")
    assert recipe_for(task, "dann", ["backbone=mlp"]).backbone == "mlp"


def test_a_run_on_vectors_stops_resumes_bit_for_bit_and_predicts_the_outputs_that_it_kept(files):
    recipe = recipe_for(own(files), "photos", SHORT)
    task = load_task("", files, recipe, own(files))
    whole = Experiment.start(recipe, task, 0, files / "whole" / "photos" / "seed-0")
    whole.run()
    steps = iter([False] * 3)
    path = files / "cut" / "photos" / "seed-0"
    with pytest.raises(Stopped):
        Experiment.start(recipe, task, 0, path, should_stop=lambda: next(steps, True)).run()
    moved = files / "elsewhere"
    moved.mkdir()
    for name in ("source.npz", "target.npy", "test.npz"):
        shutil.move(files / name, moved / name)
    with pytest.raises(MutualignError, match=r"source\.npz: the images of .* are not there"):
        Experiment.resume(path, files)
    places = {"source": moved / "source.npz", "target": moved / "target.npy", "target_test": moved / "test.npz"}
    Experiment.resume(path, files, moved=places).run()
    weights = [RunFolder.open(run).checkpoints.load_weights(0, "last")[0] for run in (whole.folder.path, path)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    Predict(path, moved / "test.npz", out=files / "p.csv", epoch="last").main(PlainConsole(file=io.StringIO()))
    rows = list(csv.DictReader((files / "p.csv").read_text(encoding="utf-8").splitlines()))
    kept = RunFolder.open(path).checkpoints.load_outputs(0, "last")[0]["target_logits"].softmax(1)
    assert [row["path"] for row in rows[:2]] == [f"{moved}/test.npz:0", f"{moved}/test.npz:1"]
    assert [row["label"] for row in rows] == [("cat", "dog", "owl")[best] for best in kept.argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], kept.amax(1), atol=2e-6)


def test_a_comparison_on_vectors_has_rows_of_its_recipes_and_trains_nothing_twice(files, monkeypatch):
    command = Compare(
        recipes=("photos_source_only,photos",),
        own_images=OwnImagesOptions(files / "source.npz", files / "target.npy", target_test=files / "test.npz"),
        seeds=1,
        set=(SHORT,),
        out=files / "runs",
        save=files / "rows.json",
    )
    text = io.StringIO()
    command.main(PlainConsole(file=text))
    rows = json.loads((files / "rows.json").read_text(encoding="utf-8"))["rows"]
    assert {row["recipe"].rpartition("-")[0] for row in rows} == {"photos_source_only", "photos"}
    assert {row["task"] for row in rows} == {"source-to-target"}
    monkeypatch.setattr(Experiment, "run", lambda self: pytest.fail("trained again"))
    command.main(PlainConsole(file=text))


def test_a_run_predicts_only_what_it_was_trained_on(files):
    recipe = recipe_for(own(files), "photos", [*SHORT, "stages.0.epochs=1"])
    path = files / "runs" / "photos" / "seed-0"
    Experiment.start(recipe, own(files).load(), 0, path).run()
    predictor = Predictor.load(path)
    vectors = {"x:0": torch.ones(1, 1, WIDTH), "x:1": torch.full((1, 1, WIDTH), torch.inf)}
    with pytest.raises(NotFinite, match=r"^x:0 to x:1: the network's logits are not finite for 1 of 2 images"):
        list(predictor.predict(vectors.items()))
    predictor.require_kind("good.npz", WIDTH)
    for size, message in ((5, "x: vectors of 5 values; the run"), (None, "x: images; the run .* takes vectors of 8")):
        with pytest.raises(MutualignError, match=message):
            predictor.require_kind("x", size)
    with pytest.raises(MutualignError, match=r"test\.npz: 30 rows\n  hint:    add --out"):
        Predict(path, files / "test.npz").main(PlainConsole(file=io.StringIO()))
