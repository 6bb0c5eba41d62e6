"""The explorer's application, asked without a server."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `web` is not installed")
httpx = pytest.importorskip("httpx")


@dataclasses.dataclass(frozen=True)
class Client:
    """Asks an application as a browser or a program would."""

    app: Any
    base: str = "http://127.0.0.1:8765"

    def get(self, path: str, method: str = "GET", page: bool = False, **options: Any) -> Any:
        """The response to one request; `page` asks for HTML, as a browser does."""
        headers = {"accept": "text/html,*/*"} if page else {}
        headers |= options.pop("headers", {})

        async def ask() -> Any:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base) as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(ask())


@pytest.fixture(scope="session")
def site() -> Client:
    """The application with its tasks in this process."""
    from convatlas.explorer import make_app

    return Client(make_app(workers=0))
