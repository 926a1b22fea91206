"""What `import mutualign` does to the process: nothing but OpenMP's waiting time, unless the user has set it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import ctypes, mutualign
from importlib.util import find_spec
from pathlib import Path
(openmp,) = Path(find_spec("torch").origin).parent.glob("lib/libgomp*")  # torch loads it, and takes a second
ctypes.CDLL(str(openmp))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch has GNU OpenMP on Linux only")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_without_work_soon_sleep_unless_the_environment_says_otherwise(environment, expected):
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", CODE]
    shown = subprocess.run(
        command, env=kept | environment | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True
    )
    assert f"GOMP_SPINCOUNT = '{expected}'" in shown.stderr
