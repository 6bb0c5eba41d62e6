"""A network's page: card, knobs, totals, sheet with its figure, receptive field."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from convatlas.catalog.cards import Card, all_cards, find_card
from convatlas.catalog.describe import figure_title
from convatlas.catalog.index import Entry, find_entry

from .. import atlas
from ..api import workers_of
from ..settings import DTYPES, OPTIMIZERS, BadRequestError, Settings, read_settings
from .card import published_lines
from .render import names, page, part

LEVELS = ("stages", "blocks", "operations")
VIEW = ("level", "open", "layer", "at", "token")
OPTIMIZER_NAMES = {
    "sgd": "SGD", "momentum": "SGD, momentum", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW",
}  # fmt: skip
DTYPE_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
PARTS = ("totals", "rows", "total_row", "takeaway")
router = APIRouter(include_in_schema=False)


@router.get("/networks/{name}")
async def network_page(request: Request, name: str) -> Response:
    """A network: card, knobs, totals, sheet with its figure, receptive field."""
    card = find_card(name)
    if card.name != name and "x-swap" not in request.headers:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/networks/{card.name}{query}", 302)
    given = dict(request.query_params)
    settings = read_settings(card.name, given, view=VIEW)
    level, opened, pointed, at = _view(given)
    run = workers_of(request).run
    try:
        view: dict[str, Any] = await run("network_view", settings, level, opened, pointed)
        problem = None
    except BadRequestError as error:
        if "x-swap" in request.headers:
            return JSONResponse(_too_small(str(error), settings), 422)
        view = await run("network_view", settings.as_published, level, opened, pointed)
        problem = _too_small(str(error), settings)
    chosen = view["pointed"] if pointed else ""
    shown = {"level": level, "open": ",".join(sorted(opened)), "layer": chosen, "at": at}
    values: dict[str, Any] = {
        "page": "networks",
        "settings": settings,
        "view": view,
        "level": level,
        "levels": LEVELS,
        "knobs": _knobs(settings, view["options"]),
        "is_set": settings != settings.as_published,
        "downloads": _downloads(settings),
        "command": _command(settings),
        "problem": problem,
        "at": at,
        "smallest": find_entry(card.name).min_input_size,
        "address_of": functools.partial(_level_address, settings, shown),
    }
    if "x-swap" not in request.headers:
        return page("network.html", **values, **_head(card), names=names())
    parts = {name: part("network_parts.html", name, **values) for name in PARTS}
    answer = {"parts": parts, "say": view["say"], "url": _address(settings, shown), "set": settings.query()}
    return JSONResponse(answer)


def _view(given: Mapping[str, str]) -> tuple[str, frozenset[str], str, str]:
    level = given.get("level", "") or "blocks"
    if level not in LEVELS:
        raise BadRequestError(f"`level`={level[:20]!r}; expected one of {', '.join(LEVELS)}")
    opened = frozenset(key for key in given.get("open", "")[:2000].split(",") if key)
    at = given.get("at", "")
    return level, opened, given.get("layer", "")[:200], at if re.fullmatch(r"\d{1,5},\d{1,5}", at) else ""


def _address(settings: Settings, shown: Mapping[str, str]) -> str:
    query = settings.query() | {name: value for name, value in shown.items() if value and value != "blocks"}
    path = f"/networks/{settings.network}"
    return f"{path}?{urlencode(query, safe=',:')}" if query else path


def _level_address(settings: Settings, shown: Mapping[str, str], level: str) -> str:
    return _address(settings, {**shown, "level": level})


def _too_small(message: str, settings: Settings) -> dict[str, Any]:
    """An error at the knob; with the size that works, where the message or the index names one."""
    found = re.search(r"smallest (?:input|size) that works is \(?\d+(?:x|, )(\d+)", message)
    smallest = find_entry(settings.network).min_input_size
    known = smallest if not settings.options and min(settings.input_size[1:]) < smallest else None
    return {"detail": message, "works": int(found[1]) if found else known}


def _knobs(settings: Settings, options: Any) -> dict[str, Any]:
    plain = settings.as_published
    classes = dict(settings.options).get("num_classes", "")
    published = str(find_card(settings.network).num_classes)
    return {
        "side": settings.input_size[1], "side_is_set": settings.input_size != plain.input_size,
        "published_side": plain.input_size[1], "most": max(512, 2 * plain.input_size[1]),
        "input_text": settings.input_text, "classes": classes or published, "classes_is_set": bool(classes),
        "published_classes": published,
        "main": [option for option in options if option.kind in ("range", "choice")],
        "more": [option for option in options if option.kind not in ("range", "choice")],
        "dtypes": [(name, DTYPE_NAMES[name]) for name in DTYPES[:3]],
        "optimizers": [(name, OPTIMIZER_NAMES[name]) for name in OPTIMIZERS],
    }  # fmt: skip


def _downloads(settings: Settings) -> dict[str, str]:
    query = settings.query()
    size = {**query, "network": settings.network}
    figure = urlencode(
        {**{k: v for k, v in query.items() if k not in ("batch", "dtype", "optimizer")}}, safe=","
    )
    base = f"/api/v1/draw/{settings.network}"
    links = {form: f"{base}.{form}{'?' + figure if figure else ''}" for form in ("svg", "png", "pdf")}
    for form in ("json", "csv", "md", "latex"):
        extra = {} if form == "json" else {"format": form}
        links[form] = f"/api/v1/size?{urlencode({**size, **extra}, safe=',')}"
    return links


def _command(settings: Settings) -> str:
    """The command that prints what is seen."""
    words = ["convatlas", "size", settings.network]
    for name, value in settings.query().items():
        flag = {"batch": "batch-size"}.get(name, name)
        words += (
            [f"--{flag}", value]
            if flag in ("input", "batch-size", "dtype", "optimizer")
            else ["--model", f"{name}={value}"]
        )
    return " ".join(words)


def _head(card: Card) -> dict[str, Any]:
    """The card."""
    entry: Entry = find_entry(card.name)
    title, _ = figure_title(card.name)
    alike = [each for each in all_cards().values() if each.module == card.module]
    titles = [figure_title(each.name)[0] for each in alike]
    variants = [
        (each.name, named if titles.count(named) == 1 else each.name, each.name == card.name)
        for each, named in zip(alike, titles, strict=True)
    ]
    family = next(network.family for network in atlas.networks() if network.name == card.name)
    return {
        "card": card, "title": title, "entry": entry, "variants": variants if len(variants) > 1 else [],
        "family": atlas.FAMILIES[family], "published": published_lines(card, entry),
        "paper_link": _link(card.paper.identifier),
    }  # fmt: skip


def _link(identifier: str) -> str:
    scheme, _, rest = identifier.partition(":")
    known = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    if scheme in known:
        return known[scheme] + rest
    return identifier if identifier.startswith("https://") else ""
