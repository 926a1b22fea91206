"""The command line called in this process, and a folder of tiny images on which two recipes have been compared."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from mutualign.cli import app
from mutualign.cli.stopping import AT_ONCE, OTHERS

SOURCE_ONLY, DANN = "source_only", "dann"
IMAGES = ["--source", "source", "--target", "target", "--target-test", "test"]
SHORT = ["--set", "backbone=mlp", "stages.0.epochs=2", "precision=float32"]
COMPARE = ["compare", "--recipes", "source_only,dann", "--seeds", "1", "--no-baselines"]
COMPARE += [*IMAGES, *SHORT, "--save", "rows.json"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def call(*arguments: str) -> int:
    """Run the command in this process, and return its exit status; signal handlers are left as they were."""
    handlers = {number: signal.getsignal(number) for number in (*AT_ONCE, *OTHERS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mutualign", *arguments])
        try:
            app.main()
        except SystemExit as leaving:
            return int(leaving.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return 0


def save_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Two classes, one of which looks like markup, 8x8: source, unlabelled target, labelled target test; compared."""
    folder = tmp_path_factory.mktemp("work place")
    for number in range(12):
        for name, value in (("[red]", 20), ("light", 220)):
            for domain in ("source", "test"):
                save_image(folder / domain / name / f"{number}.png", value + number)
            save_image(folder / "target" / f"{name[:2]}-{number}.png", value + number)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("COLUMNS", "160")
        assert call(*COMPARE) == 0
    return folder


@pytest.fixture
def mutualign(tmp_path, monkeypatch, capsys):
    """Call the command in this process, in an empty folder; gives exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def answer(*arguments: object) -> Answer:
        capsys.readouterr()
        return Answer(call(*map(str, arguments)), *capsys.readouterr())

    return answer


@pytest.fixture
def refused(mutualign):
    """Call the command, which must refuse with status 2 and a message without a traceback; gives the message."""

    def message(*arguments: object) -> str:
        code, _, err = mutualign(*arguments)
        assert code == 2, err
        assert err.startswith("mutualign: ")
        assert "Traceback" not in err
        return err

    return message


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A copy of the workplace in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    for config in tmp_path.glob("runs/*/*/*/config.toml"):
        config.write_text(config.read_text().replace(str(workplace), str(tmp_path)))
    return tmp_path


@pytest.fixture
def runs(here):
    """The two runs of the workplace by recipe, as relative paths."""
    found = {
        json.loads(path.read_text())["recipe"].split("-")[0]: path.parent
        for path in here.glob("runs/*/*/*/result.json")
    }
    return {recipe: path.relative_to(here) for recipe, path in found.items()}
