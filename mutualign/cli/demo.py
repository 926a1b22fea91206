"""`demo`: the command that compares finished runs in a browser."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mutualign.cli.options import require_between


@dataclass(frozen=True)
class Demo:
    """Compare finished runs on a local web page: pick real images, upload your own, draw digits over photos.

    Only this computer can open it. Ctrl-C ends it.

    Example: mutualign demo runs/digits/source_only/seed-0 runs/digits/fast/seed-0
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Complete run folders. They must take images of the same size and have the same classes."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Port to listen on. Default: the first free one from 7860 on."""
    open: bool = True
    """Open the page in a browser if there is a display."""

    def main(self, console: Console) -> None:
        from mutualign.demo.server import start

        require_between("--port", self.port, 0, 65_535)
        with console.status("loading the systems"):
            server = start(self.runs, self.port, self.open and _has_display())
        ended = threading.Event()
        # Each of these ends the server without failure, and removes its temporary files.
        for number in [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])]:
            signal.signal(number, lambda *_: ended.set())
        console.print(f"{server.url} (Ctrl-C ends it)")
        ended.wait()
        server.close()


def _has_display() -> bool:
    """Whether a browser can open a window; in a terminal, a text browser would take the screen."""
    windows = sys.platform in {"darwin", "win32"}
    return windows or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
