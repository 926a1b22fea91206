"""docs/architecture.md says where to add things: one file of each kind, added to a copy of the package, is found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## I want to add")[2]
PLACES = re.findall(r"^\| an? [^|]+\| `([^`]+)` \|", TABLE, re.MULTILINE)

METHOD = '''
"""A method."""
import torch.nn.functional as F
from mutualign.methods.base import Method
from mutualign.methods.registry import register_method

@register_method("mine")
class Mine(Method):
    """Source cross-entropy and target entropy."""

    def forward(self, batch, progress):
        logits = self.logits(batch.images).float()
        source, target = logits[: batch.n_source], logits[batch.n_source :]
        entropy = -(target.softmax(1) * target.log_softmax(1)).sum(1).mean()
        return {"class": F.cross_entropy(source, batch.labels), "entropy": 0.1 * entropy}, {}
'''
BACKBONE = '''
"""A backbone."""
from torch import nn
from mutualign.nn.backbones.base import Backbone, register_backbone

@register_backbone("mine")
class Mine(Backbone):
    """One linear layer."""

    feature_dim = 8

    def __init__(self, channels, height, width):
        super().__init__()
        self.linear = nn.Linear(channels * height * width, 8)

    def forward(self, images):
        return self.linear(images.flatten(1)).relu()
'''
DATASET = '''
"""A task: bright and dark grey images, inverted in the target."""
import torch
from mutualign.data.datasets.registry import register_task
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages

@register_task("mine", "bright or dark images; target inverted")
def mine(folder):
    labels = torch.arange(40) % 2
    pixels = (labels * 155).to(torch.uint8).view(40, 1, 1, 1).repeat(1, 6, 6, 1)
    source = LabelledImages(UnlabelledImages(pixels), labels)
    target = TargetDataset(UnlabelledImages(255 - pixels), labels)
    return Task("mine", "bright or dark, 6x6", ("dark", "bright"), source, source, target, target)
'''
VALIDATOR = '''
"""A validator."""
from mutualign.evaluation.validators.base import register_validator

@register_validator("mine")
def mine(inputs):
    """The number of target images."""
    return float(len(inputs.target_logits))
'''
ESTIMATOR = '''
"""An estimator."""
from mutualign.evaluation.estimators.base import Estimate, register_estimator

@register_estimator("mine")
def mine(run, runs):
    """Half of everything is right."""
    return Estimate(0.5, 0.0, 1.0)
'''
FORMAT = '''
"""An export format."""
from mutualign.export.formats.base import register_format
from mutualign.export.formats.safetensors import Safetensors

@register_format("mine")
class Mine(Safetensors):
    """The weights under another name."""

    suffix = ".mine"
'''
RECIPE = """
backbone = "mine"
precision = "float32"
[[stages]]
method = "mine"
epochs = 2
batch_size = 8
"""
COMMAND = '''
"""A command."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    """Print a greeting."""

    def main(self, console):
        print("hello from mine")
'''
FILES = {
    "methods/NAME.py": METHOD,
    "nn/backbones/NAME.py": BACKBONE,
    "data/datasets/tasks/NAME.py": DATASET,
    "evaluation/validators/NAME.py": VALIDATOR,
    "evaluation/estimators/NAME.py": ESTIMATOR,
    "export/formats/NAME.py": FORMAT,
    "recipes/NAME.toml": RECIPE,
    "cli/NAME.py": COMMAND,
}
SCRIPT = """
import contextlib, io, json, sys
from pathlib import Path
from mutualign.cli.app import main

def mutualign(*words):
    sys.argv = ["mutualign", *words]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main()
    return " ".join(output.getvalue().split())

run = "runs/mine/mine/seed-0"
pages = {name: mutualign(*name.split(), "--help") for name in ("", "run", "select", "export")}
mutualign("run", "--recipe", "mine", "--task", "mine", "--out", "runs", "--accelerator", "cpu")
outputs = {
    "list": mutualign("data", "list"),
    "select": mutualign("select", run, "--validator", "mine"),
    "export": mutualign("export", run, "--format", "mine"),
    "hello": mutualign("mine"),
}
from mutualign.runs.estimates import estimate_runs
from mutualign.runs.folder import RunFolder
folder = RunFolder.open(Path(run))
estimates = estimate_runs([folder])[0].estimates
Path("found.json").write_text(json.dumps({
    "pages": pages, "outputs": outputs, "estimate": estimates["mine"],
    "stage": folder.require_result().stages[0].method, "scores": folder.metrics()[0].scores,
}))
"""


def test_the_page_has_a_row_for_each_kind_that_is_tried_here():
    assert sorted(PLACES) == sorted(FILES)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the command line of a copy of the package, with one more file of each kind, finds and prints."""
    folder = tmp_path_factory.mktemp("added")
    shutil.copytree(ROOT / "mutualign", folder / "mutualign", ignore=shutil.ignore_patterns("__pycache__"))
    for place, content in FILES.items():
        path = folder / "mutualign" / place.replace("NAME", "mine")
        assert path.parent.is_dir()
        path.write_text(content, encoding="utf-8")
    app = folder / "mutualign" / "cli" / "app.py"
    text = app.read_text(encoding="utf-8")
    app.write_text(text.replace("COMMANDS = {\n", 'COMMANDS = {\n    "mine": "mine:Mine",\n'), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def test_help_names_what_was_added(found):
    assert "Print a greeting" in found["pages"][""]
    for command in ("run", "select", "export"):
        assert re.search(r"\bmine\b", found["pages"][command]), command
    assert "bright or dark images; target inverted" in found["outputs"]["list"]


def test_the_added_method_backbone_dataset_recipe_validator_estimator_format_and_command_work(found):
    assert found["stage"] == "mine"
    assert found["scores"]["mine"] == 40
    assert found["estimate"] == [0.5, 0.0, 1.0]
    assert "mine" in found["outputs"]["select"]
    assert "model.mine" in found["outputs"]["export"]
    assert found["outputs"]["hello"] == "hello from mine"
