"""The demo's server, by real requests on this computer: what it answers, what it refuses, and what it leaves behind."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from mutualign.demo import guard, server
from mutualign.errors import MutualignError

pytestmark = [pytest.mark.usefixtures("gradio"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of pandas

JOIN = "/gradio_api/queue/join"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def demo(gradio, images, tmp_path_factory):
    """A demo that is served from this process, with an empty folder for temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "")  # put back afterwards
        serving = server.DemoServer(images)
        yield serving
        serving.close()


def address(demo) -> str:
    return demo.url.removeprefix("http://").rstrip("/")


def place(demo) -> tuple[str, int]:
    host, _, port = address(demo).partition(":")
    return host, int(port)


def ask(demo, method="GET", path="/", body=None, host=None, **headers) -> tuple[int, dict[str, str], bytes]:
    """Send one request, with any Host; return status, headers and body of the answer."""
    with closing(HTTPConnection(address(demo), timeout=30)) as connection:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", address(demo) if host is None else host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_the_page_is_served_under_its_own_addresses_alone(demo):
    port = address(demo).partition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        status, _, body = ask(demo, host=host)
        assert (status, b"mutualign demo" in body) == (200, True)
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        "localhost:1",
        f"127.0.0.1.evil.example:{port}",
        "",
    ):
        status, headers, body = ask(demo, host=host, Origin=f"http://{host}")
        assert (status, b"mutualign demo" in body) == (421, False)
        assert "access-control-allow-origin" not in headers


def test_browsers_leave_out_the_usual_port():
    def passes(port, host):
        headers = [(b"host", host.encode()), (b"origin", f"http://{host}".encode())]
        return not guard.refuse({"path": "/", "method": "GET", "server": ("127.0.0.1", port), "headers": headers})

    assert all(passes(80, host) for host in ("127.0.0.1", "localhost", "localhost:80"))
    assert not any(passes(*one) for one in ((80, "evil.example"), (8080, "localhost"), (8080, "localhost:80")))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:3000"])
def test_other_sites_can_neither_read_nor_send(demo, origin):
    for method, path, body in (("GET", "/config", None), ("POST", JOIN, b"{}"), ("OPTIONS", JOIN, None)):
        status, headers, _ = ask(demo, method, path, body, Origin=origin, Content_Type="application/json")
        assert status == 403
        assert not any(name.startswith("access-control") for name in headers)


CLOSED = {
    "GET": "/gradio_api/upload_progress?upload_id=a /gradio_api/file=/etc/passwd /file=/etc/passwd /docs /openapi.json "
    "/gradio_api/proxy=http://example.org /gradio_api/info /monitoring /gradio_api/runs /assets/../../../etc/passwd "
    "/static/%2e%2e/%2e%2e/routes.py",
    "POST": "/gradio_api/upload /gradio_api/run/predict /gradio_api/api/predict /gradio_api/call/predict /login "
    "/gradio_api/reset /gradio_api/cancel /gradio_api/component_server /",
    "DELETE": "/",
    "PUT": JOIN,
}


@pytest.mark.parametrize(("method", "path"), [(method, path) for method in CLOSED for path in CLOSED[method].split()])
def test_uploads_files_and_every_other_route_of_gradio_are_closed(demo, method, path):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc\r\n--x--\r\n'
    body = part if method == "POST" else None
    assert ask(demo, method, path, body, Content_Type="multipart/form-data; boundary=x")[0] == 404
    assert ask(demo, method, path, b"{}" if body else None, **JSON)[0] == 404


def test_a_refused_request_gets_its_answer_although_nobody_wants_its_body(demo):
    for _ in range(20):
        assert ask(demo, "POST", "/gradio_api/upload", b"x" * 500_000)[0] == 404


def test_only_json_of_a_limited_size_and_number_of_values_is_read(demo):
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        assert ask(demo, "POST", JOIN, b"{}", Content_Type=kind)[0] == 415
    many = b'{"data": [' + b",".join([b"1"] * 100_000) + b"]}"
    assert ask(demo, "POST", JOIN, many, **JSON)[0] == 413
    assert ask(demo, "POST", JOIN, b"[" * 5000, **JSON)[0] == 413
    began = time.monotonic()
    assert ask(demo, "POST", JOIN, b"", Content_Length="40000000", Content_Type="application/json")[0] == 413
    assert time.monotonic() - began < 5
    endless = f"POST {JOIN} HTTP/1.1\r\nHost: {address(demo)}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(place(demo), timeout=30) as connection:
        connection.sendall(f"{endless}Transfer-Encoding: chunked\r\n\r\n".encode())
        with suppress(ConnectionError):  # the server hangs up on what is too long
            for _ in range(100):
                connection.sendall(b"%x\r\n%s\r\n" % (1 << 20, b"1" * (1 << 20)))
        with suppress(ConnectionError):
            assert connection.recv(12) in (b"HTTP/1.1 413", b"")


def test_bodies_are_limited_in_time_and_in_total(demo, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 2.0)
    host = address(demo)
    head = f"POST {JOIN} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {guard.LARGEST_BODY}\r\n\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(place(demo), timeout=30)) for _ in range(4)]
        for connection in slow:
            connection.sendall(head.encode() + b"{")
        while (busy := ask(demo, "POST", JOIN, b"{}", **JSON)[0]) != 503:  # until the server has read the four heads
            assert busy == 422  # no question of the page
        assert all(connection.recv(12) == b"HTTP/1.1 408" for connection in slow)
    assert ask(demo, "POST", JOIN, b"{}", **JSON)[0] == 422


def test_a_busy_demo_receives_the_body_that_it_refuses():
    """One left unread would reset the connection, answer and all."""
    events = []

    async def receive():
        events.append("body")
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        events.append(message.get("status", message["type"]))

    headers = [(b"host", b"127.0.0.1:80"), (b"content-type", b"application/json"), (b"content-length", b"2")]
    scope = {"type": "http", "method": "POST", "path": JOIN, "server": ("127.0.0.1", 80), "headers": headers}
    busy = guard.Guard(lambda *_: pytest.fail("passed on"))
    busy.receiving = guard.MOST_BODY_BYTES
    asyncio.run(busy(scope, receive, send))
    assert events == ["body", 503, "http.response.body"]


def test_a_click_is_answered_with_the_class_names(demo):
    """The requests that a browser makes when a visitor picks a real image."""
    config = json.loads(ask(demo, path="/config")[2])
    samples = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "samples")
    question = next(each["id"] for each in config["dependencies"] if [samples, "select"] in each["targets"])
    body = {"data": [], "event_data": {"group": 0, "pick": 1}, "fn_index": question, "session_hash": "abc"}
    assert ask(demo, "POST", JOIN, json.dumps(body).encode(), Origin=demo.url.rstrip("/"), **JSON)[0] == 200
    answer = ask(demo, path="/gradio_api/queue/data?session_hash=abc")[2].decode()
    assert "process_completed" in answer
    assert all(name in answer for name in ("left", "middle", "right", "true class"))


def test_closing_frees_the_port_and_leaves_no_file(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
    asked, look_up = [], socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **kw: asked.append(host) or look_up(host, *rest, **kw)
    )
    serving = server.DemoServer(images)
    closed = place(serving)
    assert ask(serving)[0] == 200
    (Path(os.environ["GRADIO_TEMP_DIR"]) / "left.png").write_bytes(b"a file that Gradio kept")
    serving.close()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(closed)
    assert set(asked) <= {"127.0.0.1", "localhost", b"127.0.0.1"}  # no other host


def test_a_port_that_is_taken_or_forbidden_is_named_and_so_is_the_missing_extra(image_run, monkeypatch):
    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MutualignError, match=f"port {port} is taken"):
            server.start([image_run], port)
    with monkeypatch.context() as patch:
        denied = PermissionError(errno.EACCES, "Permission denied")
        patch.setattr(socket.socket, "bind", lambda *_: (_ for _ in ()).throw(denied))
        with pytest.raises(MutualignError, match=r"port 80 cannot be used: Permission denied\n  hint: "):
            server.start([image_run], 80)
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "gradio" else importlib.util.find_spec(name))
    with pytest.raises(MutualignError, match=r"pip install 'mutualign\[demo\]'"):
        server.start([image_run])


def test_the_command_prints_where_the_page_is_and_ctrl_c_ends_it_cleanly(image_run, tmp_path):
    command = [sys.executable, "-m", "mutualign", "demo", str(image_run), "--no-open"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        line = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=60)
    assert line.startswith("http://127.0.0.1:")
    assert (running.returncode, rest, errors) == (0, "", "")
    assert [path for path in tmp_path.iterdir() if path.name.startswith(("mutualign", "gradio"))] == []
