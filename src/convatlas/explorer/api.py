"""The JSON API, version 1. Networks and sizes are what `convatlas show --json` and `size --json` print."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import find_card
from convatlas.catalog.describe import record
from convatlas.catalog.index import all_entries, find_entries, parse_amount, parse_years
from convatlas.escape import json_text

from .guards import POLICY
from .settings import BadRequestError, Settings, read_settings
from .workers import Workers

FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "latex": "text/plain; charset=utf-8",
}
FIGURES = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}
STYLES = ("blocks", "volumes", "graph")
LEVELS = ("stage", "block", "layer")
THEMES = ("light", "dark", "print")
CHARTS = ("depth", "ideas", "accuracy")
SHOWS = ("shapes", "params", "macs", "rf")
VIEW_OF_SIZE = ("format", "layers", "token")
VIEW_OF_FIGURE = ("level", "style", "theme", "show", "module", "token")


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in (
        (400, "The request is malformed."),
        (404, "There is no such network."),
        (422, "A parameter is out of range, or the input does not fit."),
        (503, "Too many requests wait; the header Retry-After says how long to wait."),
    )
}
router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)
Input = Annotated[
    str, Query(description="Height and width in px, or C,H,W.", examples=["224"], max_length=40)
]
Batch = Annotated[int, Query(ge=1, le=1_048_576, description="Images at a time.")]
Name = Annotated[str, Path(max_length=80, description="A name or an alias.")]


def workers_of(request: Request) -> Workers:
    """The workers of the app."""
    workers: Workers = request.app.state.workers
    return workers


@router.get("/networks", summary="All networks, with their sizes and published accuracies")
def list_networks(
    pattern: Annotated[str, Query(max_length=80)] = "*",
    tag: Annotated[str | None, Query(max_length=40)] = None,
    year: Annotated[str | None, Query(max_length=12, description="2015, or 2015..2017")] = None,
    max_params: Annotated[str | None, Query(max_length=20)] = None,
    max_macs: Annotated[str | None, Query(max_length=20)] = None,
    sort: Annotated[str, Query(max_length=20)] = "year",
) -> list[dict[str, Any]]:
    """Networks, as `convatlas list` chooses them."""
    entries = find_entries(
        pattern,
        tag=tag,
        years=None if year is None else parse_years(year),
        max_params=None if max_params is None else parse_amount("max_params", max_params),
        max_macs=None if max_macs is None else parse_amount("max_macs", max_macs),
        sort=sort,
    )
    return [dataclasses.asdict(entry) | {"top1": _top1(entry.name)} for entry in entries]


def _top1(name: str) -> dict[str, Any] | None:
    found = find_accuracy(name)
    return None if found is None else dataclasses.asdict(found)


@router.get("/networks/{name}", summary="A network's card, as `show --json`")
def show_network(name: Name) -> Any:
    """Its paper, what that printed, and what is computed here."""
    return json_response(json_text(record(name), indent=2))


@router.get("/size", summary="A network's sizes, as `size --json`", response_class=Response)
async def size_network(
    request: Request,
    network: Annotated[str, Query(max_length=80)],
    input: Input = "",
    batch: Batch = 1,
    dtype: Annotated[str, Query(max_length=20)] = "float32",
    optimizer: Annotated[str, Query(max_length=20)] = "momentum",
    classes: Annotated[int | None, Query(ge=0, le=10_000_000)] = None,
    format: Annotated[str, Query(max_length=10, description="json, csv, md or latex")] = "json",
    layers: Annotated[bool, Query(description="csv, md and latex: a line per operation")] = False,
) -> Response:
    """Totals, stages and operations. Fields of its config, such as `width_mult`, are parameters too."""
    settings = read_settings(network, dict(request.query_params), view=VIEW_OF_SIZE)
    if format not in FORMATS:
        raise BadRequestError(f"`format`={format!r}; expected one of {', '.join(FORMATS)}")
    text = await workers_of(request).run("size_text", settings, format, layers)
    return Response(text, media_type=FORMATS[format])


@router.get("/compare", summary="Two networks, their ratios and their stages")
async def compare_networks(
    request: Request,
    a: Annotated[str, Query(max_length=80)],
    b: Annotated[str, Query(max_length=80)],
    input: Input = "",
    batch: Batch = 1,
) -> Response:
    """Totals of both, ratios of `b` to `a`, and stages aligned by the side of their maps."""
    text = await workers_of(request).run("compare_text", *both_settings(a, b, input, str(batch)))
    return json_response(text)


def both_settings(a: str, b: str, input: str, batch: str = "1") -> tuple[Settings, Settings]:
    """The settings of two networks with one input and batch."""
    query = {"input": input, "batch": batch}
    return read_settings(a, query), read_settings(b, query)


@router.get("/draw/{file}", summary="A figure, as `convatlas draw` writes it", response_class=Response)
async def draw_network(
    request: Request,
    file: Annotated[str, Path(max_length=90, description="NAME.svg, NAME.png or NAME.pdf")],
    level: Annotated[str, Query(max_length=10)] = "block",
    style: Annotated[str, Query(max_length=10)] = "blocks",
    theme: Annotated[str, Query(max_length=10)] = "light",
    show: Annotated[str, Query(max_length=40)] = "shapes,params,macs",
    module: Annotated[str, Query(max_length=120)] = "",
    input: Input = "",
) -> Response:
    """A figure of a network; stages, blocks or layers."""
    name, _, form = file.rpartition(".")
    if form not in FIGURES:
        raise BadRequestError(f"file {file[:40]!r}; expected NAME.{', NAME.'.join(FIGURES)}")
    for what, value, allowed in (
        ("level", level, LEVELS),
        ("style", style, STYLES),
        ("theme", theme, THEMES),
    ):
        if value not in allowed:
            raise BadRequestError(f"`{what}`={value!r}; expected one of {', '.join(allowed)}")
    settings = read_settings(name, dict(request.query_params), view=VIEW_OF_FIGURE)
    options = {"level": level, "style": style, "theme": theme, "module": module, "show": show.split(",")}
    data: bytes = await workers_of(request).run("figure", settings, form, options)
    headers = {"content-disposition": f'inline; filename="{settings.network}.{form}"'}
    if form == "svg":
        headers["content-security-policy"] = _policy_of(data.decode())
    return Response(data, media_type=FIGURES[form], headers=headers)


@router.get("/history/{file}", summary="A chart, as `convatlas history` draws it", response_class=Response)
async def draw_history(
    request: Request,
    file: Annotated[str, Path(max_length=20, description="depth.svg, ideas.svg or accuracy.svg")],
    theme: Annotated[str, Query(max_length=10)] = "light",
) -> Response:
    """Depth and error by year, the timeline of ideas, or accuracy and what it costs."""
    chart, _, form = file.rpartition(".")
    if form != "svg" or chart not in CHARTS:
        raise BadRequestError(f"file {file!r}; expected {', '.join(f'{each}.svg' for each in CHARTS)}")
    if theme not in THEMES:
        raise BadRequestError(f"`theme`={theme!r}; expected one of {', '.join(THEMES)}")
    svg: str = await workers_of(request).run("history", chart, theme)
    return Response(svg, media_type=FIGURES["svg"], headers={"content-security-policy": _policy_of(svg)})


def _policy_of(svg: str) -> str:
    """The policy, with the figure's own style sheets named by their digests."""
    sheets = re.findall(r"<style>(.*?)</style>", svg, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode() for sheet in sheets]
    named = " ".join(f"'sha256-{digest}'" for digest in digests)
    return POLICY.replace("style-src 'self'", f"style-src 'self' {named}") if named else POLICY


def json_response(text: str) -> Response:
    """A text that is JSON."""
    return Response(text, media_type="application/json")


health = APIRouter(responses={503: _PROBLEMS[503]})


@health.get("/livez", summary="Whether the server runs")
def livez() -> dict[str, str]:
    """The server answers."""
    return {"status": "ok"}


@health.get("/readyz", summary="Whether networks can be sized")
def readyz(request: Request) -> Response:
    """At least one worker is ready, and the table of networks can be read."""
    ready = workers_of(request).is_ready and bool(all_entries()) and bool(find_card("lenet5"))
    if ready:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"detail": "workers are starting"}, 503, headers={"retry-after": "2"})
