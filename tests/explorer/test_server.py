"""The server as a process: its address, its port, its end, and clients that stall."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra `web` is not installed")

from convatlas.explorer import PortInUseError, serve, server

EXPLORE = [sys.executable, "-m", "convatlas", "explore", "--no-browser"]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`convatlas explore --port 0`, and the port that it printed."""
    process = subprocess.Popen(
        [*EXPLORE, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    yield process, int(address.rstrip("/").rpartition(":")[2])
    process.kill()
    process.communicate()


def ask(port: int, path: str, limit_s: float = 60.0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def sent(port: int, data: bytes) -> bytes:
    """What comes back for raw bytes, up to its first line."""
    with socket.create_connection(("127.0.0.1", port), 10) as raw:
        raw.sendall(data)
        raw.settimeout(5)
        found = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while b"\r\n" not in found and (chunk := raw.recv(65536)):
                found += chunk
        return found


def test_it_prints_its_address_and_answers(running: tuple[subprocess.Popen[str], int]) -> None:
    _, port = running
    assert ask(port, "/livez") == (200, b'{"status":"ok"}')
    status, page = ask(port, "/networks/lenet5")
    assert status == 200
    assert b"61,706" in page


def test_a_port_in_use_is_said_with_its_owner(running: tuple[subprocess.Popen[str], int]) -> None:
    process, port = running
    second = subprocess.run([*EXPLORE, "--port", str(port)], capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert f"`--port`={port} is in use" in second.stderr
    if Path("/proc/net/tcp").exists():
        assert f"(process {process.pid})" in second.stderr
    with pytest.raises(PortInUseError, match=r"or 0 for any that is free"):
        serve(port=port)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(running: tuple[subprocess.Popen[str], int], data: bytes) -> None:
    _, port = running
    first = sent(port, data).split(b"\r\n")[0]
    assert first.split(b" ")[1:2] in ([b"400"], [b"421"], [b"413"], [b"431"])
    assert ask(port, "/livez")[0] == 200


def test_a_body_is_refused_before_it_is_read(running: tuple[subprocess.Popen[str], int]) -> None:
    _, port = running
    for header in (b"Content-Length: 104857600", b"Transfer-Encoding: chunked"):
        found = sent(
            port, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n" + header + b"\r\n\r\n" + b"1\r\na\r\n"
        )
        assert found.startswith(b"HTTP/1.1 413 ")


def test_clients_that_never_finish_their_headers_are_closed(
    monkeypatch: pytest.MonkeyPatch, running: tuple[subprocess.Popen[str], int]
) -> None:
    """Here with a deadline of 0.3 s instead of 10, in this process."""
    monkeypatch.setattr(server, "HEADER_S", 0.3)
    address: list[str] = []
    known = threading.Event()

    def started(text: str) -> None:
        address.append(text)
        known.set()

    thread = threading.Thread(target=serve, kwargs={"port": 0, "workers": 0, "started": started}, daemon=True)
    thread.start()
    assert known.wait(60)
    port = int(address[0].rstrip("/").rpartition(":")[2])
    stalled = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(50)]
    for each in stalled:
        each.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    assert ask(port, "/livez")[0] == 200
    for each in stalled:
        each.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert each.recv(1) == b""
        each.close()


def test_sigterm_ends_it_in_ten_seconds_with_a_stalled_client(
    running: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = running
    with socket.create_connection(("127.0.0.1", port), 10) as stalled:
        stalled.sendall(b"GET / HTTP/1.1\r\nHost: ")
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)
    assert process.returncode in (0, -signal.SIGTERM)
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
