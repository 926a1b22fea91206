"""The demo's server: the page on this computer alone, until it is closed."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mutualign.demo.images import LARGEST_UPLOAD
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError

if TYPE_CHECKING:
    import fastapi

HOST = "127.0.0.1"
PORTS = range(7860, 7960)  # tried in order unless a port is given
WAITING = 8  # most requests that wait for an answer
CONNECTIONS = 100
SESSIONS = 100  # browser tabs whose drawing is remembered
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")  # of the reader's own system
MONOSPACE = ("ui-monospace", "Cascadia Mono", "DejaVu Sans Mono", "monospace")


class DemoServer:
    """A demo that is being served at `url`; `close` ends it and removes its temporary files."""

    def __init__(self, gallery: Gallery, port: int = 0) -> None:
        self._socket = _listen(port)
        self._folder = tempfile.TemporaryDirectory(prefix="mutualign-demo-", ignore_cleanup_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = self._folder.name
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        import uvicorn

        from mutualign.demo.guard import Guard

        config = uvicorn.Config(
            Guard(_application(gallery)),
            log_level="warning",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                self.close()
                raise MutualignError("the demo's server did not start; the lines above say why")
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self._socket.getsockname()[1]}/"

    def close(self) -> None:
        """Stop serving and remove the temporary files."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()
        self._folder.cleanup()


def start(runs: Sequence[Path], port: int = 0, browser: bool = False) -> DemoServer:
    """Serve the demo of finished runs to this computer, and return at once.

    The port is the first free one from 7860 on, unless given. Raises MutualignError without Gradio, if the runs cannot
    be compared, or if the port cannot be used.
    """
    if find_spec("gradio") is None:
        raise MutualignError("the demo needs gradio\n  hint:    pip install 'mutualign[demo]'")
    if port:
        _listen(port).close()  # before the runs are loaded
    server = DemoServer(Gallery.load(runs), port)
    if browser:
        webbrowser.open(server.url)
    return server


def _application(gallery: Gallery) -> fastapi.FastAPI:
    """Build the page as an ASGI application without documentation, monitoring, sharing and files."""
    import fastapi
    import gradio as gr

    from mutualign.demo.page import Page

    blocks = Page(gallery).blocks()
    blocks.queue(max_size=WAITING)
    blocks.state_session_capacity = SESSIONS
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE).set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400"
    )
    application = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        application,
        blocks,
        path="/",
        server_name=HOST,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=(files("mutualign.demo") / "templates" / "demo.css").read_text(encoding="utf-8"),
    )
    return application


def _listen(port: int) -> socket.socket:
    """Listen on a port, or on the first free one. Raises MutualignError if it is taken, or may not be used."""
    for number in [port] if port else PORTS:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, number))
            listening.listen()
        except OSError as error:
            listening.close()
            if port and error.errno != errno.EADDRINUSE:
                raise MutualignError(
                    f"port {port} cannot be used: {error.strerror}\n  hint:    choose another with --port"
                ) from error
        else:
            return listening
    where = f"port {port} is taken" if port else f"no port from {PORTS[0]} to {PORTS[-1]} is free"
    raise MutualignError(f"{where}\n  hint:    choose another with --port")
