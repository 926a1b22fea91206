"""Tiny finished runs for the demo: two on digits, and one on images with named classes."""

from __future__ import annotations

import asyncio

import pytest

from mutualign.data.datasets import find_task
from mutualign.demo.systems import Gallery
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.tiny_task import make_tiny_task


@pytest.fixture(scope="session")
def gradio():
    """Gradio, which takes two seconds to import; tests that need it are skipped, and say so, where there is none."""
    return pytest.importorskip("gradio")


@pytest.fixture(scope="session", autouse=True)
def closed_loops():
    """Close the event loops that Gradio leaves open."""
    made, make = [], asyncio.new_event_loop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", lambda: made.append(make()) or made[-1])
        yield
    for loop in made:
        loop.close()


@pytest.fixture(scope="session")
def digit_runs(tmp_path_factory):
    """Run folders of `fast` and of source only on digits, in this order, trained for a few steps."""
    out = tmp_path_factory.mktemp("digits")
    task, runs = find_task("digits@200").load(out), []
    for name in ("fast", "source_only"):
        recipe = load_recipe(name, ["stages.0.epochs=1", "stages.0.epoch_steps=4"])
        runs.append(out / "digits" / name / "seed-0")
        Experiment.start(recipe, task, 0, runs[-1]).run()
    return runs


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    """A run on coloured 12x12 images of the classes left, middle and right."""
    run = tmp_path_factory.mktemp("images") / "tiny" / "source_only" / "seed-0"
    recipe = load_recipe("source_only", ["stages.0.epochs=1", "stages.0.batch_size=20"])
    Experiment.start(recipe, make_tiny_task(), 0, run).run()
    return run


@pytest.fixture(scope="session")
def digits(digit_runs):
    return Gallery.load(digit_runs)


@pytest.fixture(scope="session")
def images(image_run):
    return Gallery.load([image_run])
