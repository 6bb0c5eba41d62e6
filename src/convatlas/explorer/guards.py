"""What every request passes first: who may ask, how long it may take, and the headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST_HEADERS = 16 * 1024
REQUEST_S = 60.0
COOKIE = "convatlas"
METHODS = ("GET", "HEAD")


class Guard:
    """The outermost layer of the app.

    Args:
        app: what answers.
        host: that the server is bound to.
        token: that a request has to bring; empty on loopback.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", token: str = "") -> None:
        self._app, self._token = app, token
        self._hosts = frozenset((*LOOPBACK, host.casefold(), *_own_names(host)))
        self._any_address = host in ("0.0.0.0", "::")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refusal(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        cookie = self._new_cookie(scope)

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out.setdefault(name, value)
                if cookie:
                    out.append("set-cookie", cookie)
            await send(message)

        async with asyncio.timeout(REQUEST_S):
            await self._app(scope, receive, safely)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """A status and why, of a request that is not let in."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return (
                421,
                "this server is not asked by that name; use the address that `convatlas explore` printed",
            )
        if sum(len(name) + len(value) for name, value in headers.raw) > LARGEST_HEADERS:
            return 431, f"the headers have more than {LARGEST_HEADERS:,} bytes"
        if scope["method"] not in METHODS:
            return 405, f"{scope['method']} is not allowed here; expected GET"
        if headers.get("content-length", "0").strip("0") or "transfer-encoding" in headers:
            return 413, "a request here has no body"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "another site may not ask this server"
        if self._token and not self._is_known(scope, headers):
            return 401, "the address needs its token, as `convatlas explore` printed it"
        return None

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host)
        if name in self._hosts:
            return True
        return self._any_address and _is_address(name)

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        given = [_query_token(scope)]
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
            given.append(cookies[COOKIE].value if COOKIE in cookies else "")
        except CookieError:
            pass
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given.append(bearer if scheme.casefold() == "bearer" else "")
        return any(hmac.compare_digest(each.encode(), self._token.encode()) for each in given if each)

    def _new_cookie(self, scope: Scope) -> str:
        if not self._token or _query_token(scope) != self._token:
            return ""
        return f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"


def _query_token(scope: Scope) -> str:
    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])
    return values[0]


def _without_port(host: str) -> str:
    host = host.strip().casefold()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names(host: str) -> Sequence[str]:
    """What this machine is called, where it is asked from others."""
    return () if host in LOOPBACK else (socket.gethostname().casefold(),)


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    names = {**HEADERS, "content-type": "application/json", "content-length": str(len(body))}
    if status in (405, 413, 431):
        names["connection"] = "close"
    if status == 405:
        names["allow"] = ", ".join(METHODS)
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in names.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
