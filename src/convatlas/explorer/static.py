"""Style sheets, scripts and the sample image: a fixed set of files, read once. No client names a path."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

TYPES = {
    "explorer.css": "text/css; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "cat.jpg": "image/jpeg",
}
router = APIRouter(include_in_schema=False)


@functools.cache
def content(name: str) -> bytes:
    """A file of the package."""
    return resources.files("convatlas.explorer").joinpath("static", name).read_bytes()


@functools.cache
def digest(name: str) -> str:
    """What tells one version of a file from another."""
    return hashlib.sha256(content(name)).hexdigest()[:16]


def address(name: str) -> str:
    """Where a page finds a file; a changed file has another address."""
    return f"/static/{name}?v={digest(name)}"


@router.get("/static/{name}")
def get_static(name: str, request: Request) -> Response:
    """A file by its name."""
    if name not in TYPES:
        raise HTTPException(404, "there is no such file")
    tag = f'"{digest(name)}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.query_params.get("v") == digest(name):
        headers["cache-control"] = "max-age=31536000, immutable"
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content(name), media_type=TYPES[name], headers=headers)
