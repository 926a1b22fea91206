"""The notebook runs, and its committed outputs come from its committed code."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import matplotlib.font_manager
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tools.notebook import KEY, STORY, code_hash, execute

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Kernels write nothing to the user's folders, and use this process's list of fonts."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert matplotlib.font_manager.fontManager.ttflist
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def story():
    return nbformat.read(STORY, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def notebook_of(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def with_parameters(notebook, **parameters):
    copy = nbformat.from_dict(notebook)
    at = next(i for i, cell in enumerate(copy.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    copy.cells.insert(at + 1, nbformat.v4.new_code_cell(lines))
    return copy


def pictures(notebook):
    found = [output["data"]["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    return [base64.b64decode(picture) for picture in found]


def test_the_committed_outputs_come_from_the_committed_code_run_in_order_without_warnings():
    cells = [cell for cell in story().cells if cell.cell_type == "code"]
    assert story().metadata[KEY] == code_hash(story())
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for output in outputs(story())} <= {"stream", "display_data", "execute_result"}
    assert "stderr" not in {output.get("name") for output in outputs(story())}


def test_the_committed_notebook_has_its_pictures_is_small_and_names_no_folder_of_a_machine():
    assert len(pictures(story())) == 6
    assert all(picture.startswith(PNG) for picture in pictures(story()))
    assert STORY.stat().st_size < 1.5e6
    texts = [json.dumps({**output, "data": {**output.get("data", {}), "image/png": ""}}) for output in outputs(story())]
    assert not [text for text in texts if "/home" in text or "/root" in text or str(Path.cwd()) in text]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    short = with_parameters(story(), EPOCHS=1, EPOCH_STEPS=1)
    at = next(i for i, cell in enumerate(short.cells) if "parameters" in cell.metadata.get("tags", []))
    short.cells.insert(at, nbformat.v4.new_code_cell("def embed(rows):\n    return rows[:, :2]"))  # or 7 s of t-SNE
    ran = execute(short, tmp_path)
    assert len(pictures(ran)) == 6
    assert "epoch 1 is selected" in str(outputs(ran))
    assert list(tmp_path.glob("runs*")) == []


def test_parameters_are_replaced_and_a_cell_that_warns_or_fails_fails_the_run(tmp_path):
    notebook = notebook_of("steps, rate = 1, 2", "import sys; print(steps, rate); print('careful', file=sys.stderr)")
    notebook.cells[0].metadata["tags"] = ["parameters"]
    changed = with_parameters(notebook, rate=5)
    assert len(notebook.cells) == 2
    with pytest.raises(ValueError, match="careful"):
        execute(changed, tmp_path)
    assert outputs(changed)[0].text == "1 5\n"
    with pytest.raises(CellExecutionError, match="broken on purpose"):
        execute(notebook_of("raise OSError('broken on purpose')"), tmp_path)


def test_the_hash_covers_the_code_and_its_division_into_cells_only():
    first, second = notebook_of("a = 1", "b = 2"), notebook_of("a = 1", "b = 2")
    second.cells.append(nbformat.v4.new_markdown_cell("text"))
    second.cells[0].outputs = [nbformat.v4.new_output("stream", text="seen")]
    assert code_hash(first) == code_hash(second)
    assert code_hash(first) != code_hash(notebook_of("a = 1b = 2"))
    assert code_hash(first) != code_hash(notebook_of("a = 1", "b = 3"))
