"""Many runs for tests: recipes of the faulty methods, compared by the command line in this process."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

from mutualign.data.datasets import find_task
from mutualign.recipes import load_recipe
from mutualign.runs.comparison import Comparison
from mutualign.runs.folder import RunFolder
from tests.cli.conftest import call

PLUGIN = Path(__file__).with_name("faulty.py")
RECIPE = """
backbone = "mlp"
precision = "float32"
[[stages]]
method = "{method}"
epochs = {epochs}
batch_size = 20
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def mutualign(*arguments: object) -> Answer:
    """Call the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return Answer(call(*map(str, arguments)), out.getvalue(), err.getvalue())


def compare(recipes: str, out: str, *options: str) -> Answer:
    names = ",".join(f"{name}.toml" for name in recipes.split(","))
    return mutualign(
        "compare", "--plugin", PLUGIN, "-r", names, "-t", "bright", "--out", out, "--no-baselines", *options
    )


def run_of(out: str, recipe: str, seed: int = 0) -> RunFolder:
    return RunFolder(Path(out) / "bright" / recipe / f"seed-{seed}")


def in_this_process(recipes: str, out: Path, seeds: int = 1) -> None:
    loaded = tuple(load_recipe(f"{name}.toml") for name in recipes.split(","))
    Comparison(loaded, ("bright",), tuple(range(seeds)), out).run(lambda name: find_task(name).load(out))
