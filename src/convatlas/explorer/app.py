"""The application: routes, errors and the guard around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from convatlas._version import __version__
from convatlas.errors import UnknownNameError

from . import api, pages, static
from .guards import Guard
from .workers import BusyError, Workers

SECONDS_TO_WAIT = 3


def make_app(*, workers: int = 2, waiting: int = 16, host: str = "127.0.0.1", token: str = "") -> ASGIApp:
    """The explorer as an ASGI application.

    Args:
        workers: processes that build networks; 0 builds them in this process.
        waiting: how many requests may wait for one.
        host: that it is bound to.
        token: that each request has to bring; empty where only this machine can ask.

    Returns:
        The application.
    """
    pool = Workers(workers, waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        pool.start()
        try:
            yield
        finally:
            pool.close()

    app = FastAPI(
        title="convatlas",
        version=__version__,
        description="Sizes, figures and comparisons of convolutional networks.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
    )
    app.state.workers = pool
    app.include_router(api.router)
    app.include_router(api.health)
    app.include_router(static.router)
    app.include_router(pages.router)
    _handle_errors(app)
    return Guard(GZipMiddleware(app, minimum_size=1000, compresslevel=5), host, token)


def _handle_errors(app: FastAPI) -> None:
    async def unknown(request: Request, error: Exception) -> Response:
        known_path = request.url.path.startswith(("/api/v1/networks/", "/api/v1/draw/", "/networks/"))
        asked = "network" in str(error).split("'")[0]
        return problem(request, 404 if known_path or asked else 422, str(error))

    async def refused(request: Request, error: Exception) -> Response:
        return problem(request, 422, str(error))

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        said = [f"`{each['loc'][-1]}`: {each['msg']}" for each in error.errors()]
        return problem(request, 422, "; ".join(said))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(request, error.status_code, str(error.detail))

    async def busy(request: Request, error: Exception) -> Response:
        return problem(request, 503, str(error), {"retry-after": str(SECONDS_TO_WAIT)})

    app.add_exception_handler(UnknownNameError, unknown)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(ValueError, refused)
    app.add_exception_handler(BusyError, busy)
    app.add_exception_handler(HTTPException, http)


def problem(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON, or as a page where a browser asks for one."""
    wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if wants_page and "x-swap" not in request.headers:
        return pages.error_page(request, status, detail, headers)
    content: dict[str, Any] = {"detail": detail}
    return JSONResponse(content, status, headers=headers)
