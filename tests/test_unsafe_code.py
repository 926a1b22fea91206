"""No code from files: nothing in the package could run any, the check finds what could, and a pickle stays data."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch

from mutualign.data.cache import cached
from mutualign.data.datasets.idx import read_idx
from mutualign.data.folders.image_io import decode_image
from mutualign.data.folders.listing import list_labelled
from mutualign.data.types import ImageShape
from mutualign.errors import MutualignError
from mutualign.estimator import DomainAdapter
from mutualign.io.tensors import unpack
from mutualign.recipes import load_recipe
from mutualign.runs.folder import RunFolder
from tests.unsafe_code import unsafe

PACKAGE = Path(__file__).parents[1] / "mutualign"
PROMISE = "no code from files"

# Line by line, what the package does all the same: the export is read back from the bytes that were just written.
ALLOWED = {"report/formats.py": ["uses torch.export.load"]}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_in_the_package_loads_pickles_evaluates_text_or_unpacks_archives(path):
    found = [fault.partition(": ")[2] for fault in unsafe(path.read_text(encoding="utf-8"))]
    assert found == ALLOWED.get(path.relative_to(PACKAGE).as_posix(), [])


BAD = [
    "import pickle",
    "import pickle as p",
    "def f():\n    from pickle import loads",
    "from joblib import load as read",
    "import numpy.lib.npyio",
    "import torch.hub",
    "from torch import hub",
    "from torch import load",
    "from torch import load as innocent",
    "from torch import *",
    "import torch\nx = torch.load(path, weights_only=True)",
    "import torch as t\nx = t.load(path)",
    "import torch\nreaders = [torch.load]",
    "import torch\ntorch.hub.load_state_dict_from_url(url)",
    "import torch.jit\nm = torch.jit.load(path)",
    "import torch.distributed.checkpoint as dcp",
    "import numpy as np\na = np.load(path)",
    "import numpy as np\na = np.lib.format.read_array(f)",
    "from numpy import load",
    "a = reader(path, allow_pickle=True)",
    "a = reader(path, allow_pickle=flag)",
    "import yaml\nyaml.safe_load(text)",
    "from ruamel.yaml import YAML",
    "import shelve, json",
    "x = eval(text)",
    "x = list(map(eval, texts))",
    "exec(compile(text, 'x', 'exec'))",
    "from builtins import eval as evaluate",
    "import builtins\nbuiltins.exec(text)",
    "m = __import__(name)",
    "__builtins__['eval'](text)",
    "globals()['ev' + 'al'](text)",
    "import importlib\nm = importlib.import_module(name)",
    "from importlib import import_module as get\nm = get(f'{name}.py')",
    "import importlib\nm = importlib.import_module('pickle')",
    "import importlib.util\nimportlib.util.spec_from_file_location('x', path)",
    "import torch\nx = getattr(torch, 'load')(path)",
    "import operator\noperator.methodcaller('loads', text)(module)",
    "import subprocess\nsubprocess.run(text, shell=True)",
    "from subprocess import Popen\nPopen(text, shell=flag)",
    "import os\nos.system(text)",
    "from os import popen",
    "import runpy",
    "fabric.load(path)",
    "self.fabric.load(path, state)",
    "import tarfile\ntarfile.open(path).extractall(folder)",
    "archive.extractall(folder, filter='data')",
    "import shutil\nshutil.unpack_archive(path)",
    "import pooch\npooch.retrieve(url, None, processor=pooch.Untar())",
    "timm.create_model(name, pretrained=True)",
    "Model.load_from_checkpoint(path)",
]


@pytest.mark.parametrize("source", BAD)
def test_whatever_could_run_code_is_found_under_any_name(source, faults):
    with faults.injected(PROMISE):
        assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('x')",
        "import torch\ntorch.compile(model)",
        "import json\njson.loads(text)",
        "from safetensors.torch import load\nload(content)",
        "import importlib\nimportlib.import_module('timm')",
        "a = reader(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['git', 'status'])",
        "getattr(self, name)",
        "timm.create_model(name, pretrained=False)",
    ],
)
def test_what_is_harmless_is_let_pass(source):
    assert unsafe(source) == []


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.mkdir, (self.place,)


@pytest.fixture(params=["pickle", "torch"])
def bomb(request, tmp_path):
    """A file's content that would make a folder if it were unpickled; and that folder, which really can be made so."""
    buffer = io.BytesIO()
    torch.save({"w": Bomb(tmp_path / "went off")}, buffer)
    content = buffer.getvalue() if request.param == "torch" else pickle.dumps(Bomb(tmp_path / "went off"))
    torch.load(io.BytesIO(content), weights_only=False) if request.param == "torch" else pickle.loads(content)  # noqa: S301
    (tmp_path / "went off").rmdir()
    return content


def test_a_pickle_in_place_of_any_file_is_refused_and_does_nothing(bomb, tmp_path, faults):
    run = RunFolder.create(tmp_path / "run", {})
    for name in ("checkpoints/last.safetensors", "metrics.jsonl", "result.json"):
        (run.path / name).write_bytes(bomb + b"\n")
    for name in ("plain.safetensors", "images-idx3-ubyte", "own.toml", "table.csv"):
        (tmp_path / name).write_bytes(bomb)
    (tmp_path / "run 2").mkdir()
    (tmp_path / "run 2" / "config.toml").write_bytes(bomb)
    readers = {
        "a checkpoint": run.load_resumable,
        "metrics": run.metrics,
        "a result": run.result,
        "a config": lambda: RunFolder.open(tmp_path / "run 2"),
        "weights": lambda: unpack(tmp_path / "plain.safetensors"),
        "an adapter": lambda: DomainAdapter.load(tmp_path / "plain.safetensors"),
        "a recipe": lambda: load_recipe(str(tmp_path / "own.toml")),
        "a table": lambda: list_labelled(tmp_path / "table.csv"),
        "MNIST": lambda: read_idx(tmp_path / "images-idx3-ubyte"),
        "an image": lambda: decode_image(bomb, "x", ImageShape(1, 2, 2)),
    }
    for read in readers.values():
        with faults.injected(PROMISE):
            with pytest.raises((MutualignError, ValueError)):
                read()
            assert not (tmp_path / "went off").exists()


def test_a_pickle_in_the_cache_is_built_anew(bomb, tmp_path, faults):
    cached("thing", lambda: {"a": torch.ones(2)})
    (kept,) = (tmp_path / "cache").rglob("thing.safetensors")
    kept.write_bytes(bomb)
    with faults.injected(PROMISE):
        assert cached("thing", lambda: {"a": torch.zeros(2)})["a"].tolist() == [0, 0]
        assert not (tmp_path / "went off").exists()
