"""Two folders end to end: what the example writes is what its images are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from mutualign.data.datasets import find_task
from mutualign.data.folders.folder_task import FolderTask
from mutualign.runs.folder import RunFolder


@pytest.mark.slow
def test_two_folders_become_predictions_and_a_file_for_elsewhere(run_example, tmp_path):
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
    assert np.mean(right) > 0.8  # in any other order, a tenth

    session = onnxruntime.InferenceSession(made / "run" / "model.onnx")
    pixels = np.stack([np.array(Image.open(made / "target" / row["path"])) for row in rows[:50]])
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: pixels})
    names = RunFolder.open(made / "run").config()["class_names"]
    agree = [names[i] == row["label"] for i, row in zip(probabilities.argmax(1), rows, strict=False)]
    assert np.mean(agree) > 0.95  # all but near ties: the run predicts in bf16 where the machine has it
