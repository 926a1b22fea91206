"""Two folders end to end: the example's files, predictions and export agree with the images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from mutualign.data.datasets import find_task
from mutualign.data.folders.folder_task import FolderTask
from mutualign.recipes import load_recipe
from mutualign.runs.folder import RunFolder


def test_two_folders_become_predictions_and_an_exported_file(run_example, tmp_path, monkeypatch):
    def load_short(name, overrides):
        return load_recipe(name, [*overrides, "stages.0.epoch_steps=0", "stages.0.batch_size=32"])

    monkeypatch.setattr("mutualign.recipes.load_recipe", load_short)
    made = tmp_path / "made"
    lines = run_example("two_folders", "--epochs", "1", "--out", str(made))
    assert "target: 1,437 images" in lines
    assert "predictions.csv: 1437 images" in lines

    task, loaded = find_task("digits").load(Path("data")), FolderTask(made / "source", made / "target").load()
    assert loaded.class_names == task.class_names
    assert loaded.target_train.images.pixels.equal(task.target_train.images.pixels)
    assert loaded.target_train.reveal_labels() is None

    with (made / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth = task.target_train.reveal_labels().tolist()
    assert len(rows) == len(truth)
    right = [row["label"] == str(truth[int(Path(row["path"]).stem)]) for row in rows]
    assert np.mean(right) > 0.5  # in any other order, a tenth

    session = onnxruntime.InferenceSession(made / "run" / "model.onnx")
    pixels = np.stack([np.array(Image.open(made / "target" / row["path"])) for row in rows[:50]])
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: pixels})
    names = RunFolder.open(made / "run").config().class_names
    agree = [names[i] == row["label"] for i, row in zip(probabilities.argmax(1), rows, strict=False)]
    assert np.mean(agree) > 0.9  # all but near ties: the run predicts in bf16 if the machine has it
