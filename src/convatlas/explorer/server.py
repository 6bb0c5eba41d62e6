"""The server: its socket, its deadlines, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from .app import make_app
from .guards import LOOPBACK

HEADER_S = 10.0
END_S = 8
LARGEST_HEADER = 32 * 1024


class PortInUseError(ValueError):
    """The port is taken; the message says by whom where that can be read."""


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    workers: int = 2,
    started: Callable[[str], None] = print,
) -> None:
    """Serves the explorer until it is interrupted.

    Args:
        host: address to listen on; others than this machine's own need the token that is in the address.
        port: 0 for any that is free.
        workers: processes that build networks.
        started: is called with the address when requests are answered.

    Raises:
        ModuleNotFoundError: if the extra `web` is not installed.
        ValueError: if the host or the port cannot be used.
    """
    import uvicorn

    listening = _bind(host, port)
    token = "" if host in LOOPBACK else secrets.token_urlsafe(24)
    number = listening.getsockname()[1]
    app = make_app(workers=workers, host=host, token=token)
    config = uvicorn.Config(
        app,
        http=_protocol(),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=END_S,
        h11_max_incomplete_event_size=LARGEST_HEADER,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{number}/" + (f"?token={token}" if token else "")
    with _announced(server, lambda: started(address)), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


@contextlib.contextmanager
def _announced(server: Any, say: Callable[[], None]) -> Generator[None]:
    """Calls `say` once the server answers."""
    startup = server.startup

    async def started(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets=sockets)
        say()

    server.startup = started
    yield


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise ValueError(
            f"`host`={host!r}, `port`={port}: {error}; expected an address, such as 127.0.0.1"
        ) from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(target)
        listening.listen(512)
    except OSError as error:
        listening.close()
        if error.errno == 98:
            raise PortInUseError(
                f"`port`={port} is in use{_owner(port)}; another, or 0 for any that is free, works"
            ) from error
        raise ValueError(f"`host`={host!r}, `port`={port}: {error.strerror or error}") from error
    return listening


def _owner(port: int) -> str:
    """By which process, where Linux lets it be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = _listening_inode(port)
        for folder in Path("/proc").glob("[0-9]*") if inode else ():
            with contextlib.suppress(OSError):
                if any(link.readlink().name == f"socket:[{inode}]" for link in (folder / "fd").iterdir()):
                    name = (folder / "comm").read_text(encoding="utf-8").strip()
                    return f" by {name} (process {folder.name})"
    return ""


def _listening_inode(port: int) -> str:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    return words[9]
    return ""


def _protocol() -> type[asyncio.Protocol]:
    """Uvicorn's protocol with a deadline for the headers of a request, which uvicorn itself has not."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            cycle: Any = self.cycle
            if cycle is not None and not cycle.response_complete:
                self._stop()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._stop()
            self._deadline = self.loop.call_later(HEADER_S, self._too_slow)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.abort()

    return Protocol
