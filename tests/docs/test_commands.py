"""The commands of the README and of the docs: all parse, and those of the guides run on tiny images, in their order."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from mutualign.cli import app
from mutualign.data.datasets import TASKS
from mutualign.recipes import load_recipe
from mutualign.recipes.recipe import recipe_names
from tests.cli.conftest import call, save_image
from tests.tiny_task import every

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name / "README.md" for name in ("", "examples", "benchmarks")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
BLOCK = re.compile(r"^```sh\n(.*?)^```|((?:^    \S[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
SHORT = ("epochs=1", "epoch_steps=1", "batch_size=64")  # of every stage
GUIDES = ("start.md", "guides/choose-without-labels.md", "guides/export-and-serve.md", "guides/own-photos.md")
SLOW = re.compile(r"mnist|photos_|net|--finetune|--jobs|demo ")  # real data, pretrained weights, processes, a server


def commands(page):
    """The `mutualign` commands of a page's code blocks, without comments and placeholders."""
    lines = "\n".join(fenced or indented for fenced, indented in BLOCK.findall(page.read_text(encoding="utf-8")))
    found = (shlex.split(line, comments=True) for line in lines.splitlines() if "mutualign " in line)
    return [words[words.index("mutualign") + 1 :] for words in found if "mutualign" in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_parses(page):
    for words in commands(page):
        plugins, others = app.take_plugins(words)
        assert all(Path(ROOT, name).is_file() for name in plugins)
        if not others[0].startswith("--"):
            assert app.parse(others), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_toml_file_that_a_command_names_exists_or_is_shown_or_named_in_the_text(page):
    text = page.read_text(encoding="utf-8")
    words = [word for one in commands(page) for words in one for word in words.split(",")]
    names = {word.removeprefix("all:") for word in words if word.endswith(".toml")}
    assert [one for one in names if not Path(ROOT, one).is_file() and not re.search(f'[`"#] ?{one}', text)] == []


def test_every_baseline_that_a_page_names_is_that_of_a_recipe():
    baselines = {load_recipe(name).source_only().name for name in recipe_names()}
    named = {
        name for page in PAGES for name in re.findall(r"source_only-[0-9a-f]{8}", page.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= baselines


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Folders of tiny photos with the names of the guides, and feature vectors."""
    folder = tmp_path_factory.mktemp("guides")
    generator = np.random.default_rng(0)
    for number in range(12):
        for name, value in (("dark", 20), ("light", 220)):
            save_image(folder / "photos" / "labelled" / name / f"{number}.png", value + number)
            save_image(folder / "photos" / "unlabelled" / f"{name}-{number}.png", value + number)
    save_image(folder / "images" / "one.png", 30)
    for name in ("source", "target", "new"):
        labelled = {"y": np.arange(40) % 2} if name == "source" else {}
        np.savez(folder / f"{name}.npz", X=generator.normal(size=(40, 6)).astype(np.float32), **labelled)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run_one_after_the_other(guide, workplace, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(workplace, tmp_path / "work"))
    monkeypatch.setenv("COLUMNS", "160")

    def load_short(name, overrides=()):
        """The recipe with few steps of a small network; its name stays, so that the guide's paths are right."""
        full = load_recipe(name)
        short = [f"stages.{number}.{one}" for number in range(len(full.stages)) for one in SHORT]
        small = [] if full.features else ["backbone=mlp", "precision=float32"]
        return dataclasses.replace(load_recipe(name, [*overrides, *short, *small]), name=name)

    whole = TASKS["digits"]
    monkeypatch.setitem(TASKS, "digits", dataclasses.replace(whole, load=lambda place: every(8, whole.load(place))))
    monkeypatch.setattr("mutualign.runs.network_choice.load_recipe", load_short)
    monkeypatch.setattr("mutualign.report.output_sections.embed", lambda rows: rows[:, :2].astype(np.float64))
    # Images of 8 pixels train `best`; the guide speaks of photos, whose recipe needs larger ones.
    monkeypatch.setattr("mutualign.runs.loading.PHOTO_SIDE", 1000)
    ran = 0
    for words in commands(ROOT / "docs" / guide):
        if SLOW.search(" ".join(words)):
            continue
        there = [word.replace("labelled-to-unlabelled/photos/", "labelled-to-unlabelled/best/") for word in words]
        globbed = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in there]
        assert call(*(word for found in globbed for word in found)) in (0, 3), (words, capsys.readouterr())
        ran += 1
    assert ran >= 3
