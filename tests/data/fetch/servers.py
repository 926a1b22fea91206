"""Servers on this machine that serve a file well or badly."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WHOLE = ("good", "wrong", "breaks", "stalls", "zipped", "flipped", "short", "long", "empty")  # kinds that seem well
STATUS = dict.fromkeys(WHOLE, 200) | {"forbidden": 403, "busy": 503}


class Server(ThreadingHTTPServer):
    """Serves `files` by path. For other paths the first part says how well `content` is served.

    `asked` lists the paths asked for.
    """

    def __init__(self, content: bytes = b"content") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.stop = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone, or was killed, is no news; anything else is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # the name that http.server calls
        self.server.asked.append(self.path)
        kind, once, _ = self.path.split("/")[1].partition("-once")
        if once and self.server.asked.count(self.path) > 1:
            kind = "good"
        if kind == "silent":
            self.server.stop.wait(20)
            self.close_connection = True
            return
        if kind in ("loop", "elsewhere"):
            self.send_response(302)
            self.send_header("Location", self.path if kind == "loop" else "file:///etc/hostname")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = 200 if self.path in self.server.files else STATUS.get(kind, 404)
        body = self.server.files.get(self.path, self._body(kind))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if kind == "zipped" and "gzip" in self.headers["Accept-Encoding"]:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.close_connection = kind in ("breaks", "stalls")
        self.wfile.write(body[: len(body) // 2] if kind in ("breaks", "stalls") else body)
        if kind == "stalls":
            self.wfile.flush()
            self.server.stop.wait(20)

    def _body(self, kind: str) -> bytes:
        whole = self.server.content
        if kind == "wrong":
            return b"<html>please log in</html>"
        if kind == "flipped":
            return bytes([whole[0] ^ 1]) + whole[1:]
        return {"short": whole[:-1], "long": whole + b"\0", "empty": b""}.get(kind, whole)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what is printed."""


@contextmanager
def running_server(content: bytes = b"content") -> Iterator[Server]:
    """A server in a thread, as long as the block lasts."""
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.stop.set()
            server.shutdown()
            thread.join()
