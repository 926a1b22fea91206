"""A guard in front of the demo's server: only what the page itself asks for passes, in small bodies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from mutualign.demo.images import LARGEST_UPLOAD

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 4 * LARGEST_UPLOAD // 3 + 300_000  # bytes: an upload as base64, and what surrounds it
MOST_BODY_BYTES = 4 * LARGEST_BODY  # of all requests that are being received
MOST_VALUES = 500  # brackets and commas of a JSON body; base64 contains neither
SECONDS = 30.0  # in which a body must arrive
MOST_DISCARDED = 1 << 20  # bytes of the body of a refused request that are received
DISCARD_SECONDS = 1.0

READABLE = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/[\w./+@%-]+"
    r"|/gradio_api/(theme\.css|startup-events|queue/data|heartbeat/\w+)"
)
WRITABLE = re.compile(r"/gradio_api/queue/join")


class Guard:
    """An ASGI application that passes on a short list of requests, and answers all others itself.

    Host must be this server's own address (a page of another site that resolves to 127.0.0.1 has another Host), and
    Origin, if it is sent, the same. Bodies are JSON, limited in size, in number of values, in time and in total.
    Uploads, files, proxies and other routes of Gradio are closed.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.receiving = 0  # bytes of bodies that are being received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal := refuse(scope):
            await _discard_body(receive)
            await _answer(send, *refusal)
        elif scope["method"] == "POST":
            await self._pass_body(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _pass_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the whole body, check it, and pass it on."""
        expected = int(_header(scope, b"content-length") or LARGEST_BODY)
        if self.receiving + expected > MOST_BODY_BYTES:
            await _discard_body(receive)
            await _answer(send, 503, "The demo is busy; try again.")
            return
        self.receiving += expected
        try:
            async with asyncio.timeout(SECONDS):
                body = await _read_body(receive)
        except TimeoutError:
            await _answer(send, 408, "The request took too long.")
            return
        finally:
            self.receiving -= expected
        if body is None or sum(body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
            await _answer(send, 413, "The request is too large.")
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)


def refuse(scope: Scope) -> tuple[int, str] | None:
    """Return status and text for a request that the page never makes; None for one that may pass."""
    path, method, port = scope["path"], scope["method"], scope["server"][1]
    host, origin = _header(scope, b"host"), _header(scope, b"origin")
    ends = (f":{port}", "") if port == 80 else (f":{port}",)  # browsers leave out the usual port
    if host not in {f"{name}{end}".encode() for name in ("127.0.0.1", "localhost") for end in ends}:
        return 421, "This address does not belong to the demo."
    if origin is not None and origin != b"http://" + host:
        return 403, "Other sites may not use the demo."
    if method == "POST" and WRITABLE.fullmatch(path):
        return _refuse_body(scope)
    if method in ("GET", "HEAD") and READABLE.fullmatch(path) and ".." not in path:
        return None
    return 404, "Not found."


def _refuse_body(scope: Scope) -> tuple[int, str] | None:
    kind, length = _header(scope, b"content-type") or b"", _header(scope, b"content-length")
    if kind.partition(b";")[0].strip() != b"application/json":
        return 415, "Only JSON is read."
    if length is not None and (not length.isdigit() or int(length) > LARGEST_BODY):
        return 413, "The request is too large."
    return None


async def _read_body(receive: Receive) -> bytes | None:
    """Read a body; None if it is larger than allowed."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _discard_body(receive: Receive) -> None:
    """Receive the body of a refused request, if it is small: one left unread resets the connection, answer and all."""
    received = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while received < MOST_DISCARDED:
                message = await receive()
                received += len(message.get("body", b""))
                if not message.get("more_body", False):  # the end of the body or of the connection
                    return


def _header(scope: Scope, name: bytes) -> bytes | None:
    """Return a header that was sent once; two of a name count as none."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else None


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
