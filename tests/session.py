"""What all tests share: shapes in annotations are enforced, one thread, a cache of their own."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

# What a module imports while the hook executes it is compiled anew, which takes seconds for these.
for _library in ("beartype.door", "mutualign.training.fabric", "PIL.ImageOps", "requests", "sklearn.linear_model"):
    import_module(_library)
install_import_hook("mutualign", "beartype.beartype")  # before the first import of the package

from mutualign.cli.stopping import AT_ONCE, OTHERS  # noqa: E402
from mutualign.data.task import Task  # noqa: E402
from tests.tiny_task import make_tiny_task  # noqa: E402

BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# nohup ignores the one, and a shell the other in the background; all that tests start would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
# NumPy's and SciPy's threads wait for each other in a loop, and so take the core on which another process tests.
threadpool_limits(1)
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of processes that tests start
torch.set_warn_always(True)  # what warns once only would fail whichever test comes first


@pytest.fixture(autouse=True, scope="session")
def nothing_flushed() -> Iterator[None]:
    """No test waits for the disk: what tests write need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """No test leaves the handlers of a command that it ran in this process."""
    before = {number: signal.getsignal(number) for number in (*AT_ONCE, *OTHERS)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data files; tests that need it are skipped, and say so, where there is none."""
    folder = os.environ.get("MUTUALIGN_DATA")
    if not folder:
        pytest.skip("MUTUALIGN_DATA is not set: the real MNIST and BSDS500 files are needed")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; tests that need it are skipped, and say so, where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: `apt-get install chromium` to open pages in it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def torchvision_operators() -> Iterator[None]:
    """Let torchvision be imported beside a torch it was not built for, for libraries that only import it."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    library._destroy()


@pytest.fixture(scope="session")
def timm(torchvision_operators: None) -> ModuleType:
    """The real timm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries
        import timm
    return timm


@pytest.fixture
def tiny_task() -> Task:
    """Three classes of grey 12x12 images, told apart by which third is bright; the target is inverted and coloured."""
    return make_tiny_task()
