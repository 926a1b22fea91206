"""The demo: finished runs side by side on a local web page, until Ctrl-C."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.demo.images import MOST_BYTES
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError

if TYPE_CHECKING:
    import gradio as gr

HOST = "127.0.0.1"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")  # of the reader's own system
MONOSPACE = ("ui-monospace", "Cascadia Mono", "DejaVu Sans Mono", "monospace")


def start(runs: Sequence[Path], port: int = 0, browser: bool = False) -> gr.Blocks:
    """Serve the demo of finished runs to this computer alone, and come back; `local_url` says where, `close` ends it.

    The port is the first free one from 7860 on, unless given. Raises MutualignError without Gradio, if the runs cannot
    be shown side by side, or if the port is taken.
    """
    if find_spec("gradio") is None:
        raise MutualignError("the demo needs gradio\n  do       pip install 'mutualign[demo]'")
    if port and not _is_free(port):
        raise _taken(port)
    gallery = Gallery.load(runs)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # beside what the page says of itself: no call home at all
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio as gr

    from mutualign.demo.page import Page

    blocks = Page(gallery).blocks()
    blocks.queue(max_size=64)
    try:
        blocks.launch(
            server_name=HOST,
            server_port=port or None,
            inbrowser=browser,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=MOST_BYTES,
            state_session_capacity=100,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE).set(
                body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400"
            ),
            css=(files("mutualign.report") / "templates" / "demo.css").read_text(encoding="utf-8"),
        )
    except OSError as error:
        raise _taken(port) from error
    return blocks


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _taken(port: int) -> MutualignError:
    where = f"port {port} is taken" if port else "no port from 7860 on is free"
    return MutualignError(f"{where}\n  do       choose another with --port")
