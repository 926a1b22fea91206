"""Run notebooks and save their outputs: `python tools/notebook.py [examples/story.ipynb]`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
STORY = ROOT / "examples" / "story.ipynb"
KEY = "code_sha256"  # in the notebook's metadata: hash of the code that its outputs come from


def code_hash(notebook: NotebookNode) -> str:
    """Return the SHA-256 of all code cells, in hexadecimal; outputs and text do not count."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def execute(notebook: NotebookNode, folder: Path, timeout: int = 900) -> NotebookNode:
    """Run every cell in place, in a new kernel in `folder`; `timeout` is in seconds per cell.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails, and ValueError if a cell writes to
    stderr, since no warning belongs into a committed notebook.
    """
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"a cell wrote to stderr: {output.text}")
        cell.metadata.pop("execution", None)  # times of day
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            KEY: code_hash(notebook),
        }
    )
    return notebook


def main() -> None:
    """Run the notebooks named on the command line, by default the story, and save them with their outputs."""
    for path in [Path(name) for name in sys.argv[1:]] or [STORY]:
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(execute(notebook, path.parent), path)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
