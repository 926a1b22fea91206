"""One tiny run of each kind, made once for all tests of reports."""

from __future__ import annotations

import pytest

from mutualign.experiment import Experiment
from mutualign.recipes import load_recipe
from tests.conftest import make_tiny_task

SHORT = ["stages.0.epochs=2", "stages.1.epochs=1", "stages.0.batch_size=20", "stages.1.batch_size=20"]
EAGER = ["stages.1.options.threshold=0.34", "stages.0.learning_rate=1e-2"]


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    """Folder of a comparison on the tiny task: source_only and mani, one seed each, and a run that never began."""
    out, task = tmp_path_factory.mktemp("runs"), make_tiny_task()
    for name, overrides in (("source_only", SHORT[::2]), ("mani", SHORT + EAGER)):
        Experiment.start(load_recipe(name, overrides), task, 0, out / "tiny" / name / "seed-0").run()
    Experiment.start(load_recipe("dann"), task, 0, out / "tiny" / "dann" / "seed-0")
    return out
