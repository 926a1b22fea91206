"""The commands work without what only Unix has, as far as this can be had on Linux; `without_unix.py` says what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
QUICK = """
description = "Two epochs."
[[stages]]
method = "mcc"
epochs = 2
batch_size = 8
optim = { lr = 1e-3 }
"""
COMMANDS = """
compare --recipes quick.toml --source source --target target --seeds 1 --save results.json
report runs/source-to-target --out report.html
run --recipe quick.toml --source source --target more
predict runs/source-to-more/quick/seed-0 target --out predictions.csv
runs runs
"""


def save_photos(folder: Path, n: int, brighter: int) -> None:
    """Save n noisy photos of each of three classes: the class is where the bright stripe is."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("left", "middle", "right")):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            pixels = rng.integers(0, 60, (24, 24, 3), dtype=np.uint8) + brighter
            pixels[:, 8 * label : 8 * label + 8] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


def test_photos_are_trained_on_compared_reported_and_predicted(tmp_path, monkeypatch):
    save_photos(tmp_path / "source", 8, brighter=0)
    save_photos(tmp_path / "target", 8, brighter=60)
    save_photos(tmp_path / "more", 9, brighter=60)  # eight of nine are decoded already
    (tmp_path / "quick.toml").write_text(QUICK, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "tests.without_unix"]
    done = subprocess.run(command, cwd=tmp_path, input=COMMANDS.strip(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 complete" in done.stdout
    assert (tmp_path / "report.html").is_file()
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 25
