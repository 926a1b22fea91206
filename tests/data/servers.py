"""Servers on this machine that serve a file well or badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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
        known = {"good": 200, "wrong": 200, "breaks": 200, "zipped": 200, "forbidden": 403, "busy": 503}
        status = 200 if self.path in self.server.files else known.get(kind, 404)
        body = b"<html>please log in</html>" if kind == "wrong" else self.server.content
        body = self.server.files.get(self.path, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if kind == "zipped" and "gzip" in self.headers["Accept-Encoding"]:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.close_connection = kind == "breaks"
        self.wfile.write(body[: len(body) // 2] if kind == "breaks" else body)

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
