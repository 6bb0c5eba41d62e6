"""The pages. Each is whole without scripts; a script swaps parts of it when a knob is turned."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from convatlas.catalog.cards import Card, all_cards, find_card, resolve_name
from convatlas.catalog.describe import figure_title
from convatlas.catalog.index import Entry, find_entry, natural

from . import atlas, static
from .api import both_settings, workers_of
from .card import published_lines
from .chart import chart
from .numbers import mib, short
from .settings import DTYPES, OPTIMIZERS, BadRequestError, Settings, read_settings

LEVELS = ("stages", "blocks", "operations")
VIEW = ("level", "open", "layer", "at", "token")
OPTIMIZER_NAMES = {
    "sgd": "SGD", "momentum": "SGD, momentum", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW",
}  # fmt: skip
DTYPE_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
router = APIRouter(include_in_schema=False)


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("convatlas.explorer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(short=short, mib=mib, grouped="{:,}".format)
    environment.globals.update(address=static.address)
    return environment


def _page(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    html = _templates().get_template(template).render(values)
    return HTMLResponse(html, status, headers={"cache-control": "no-store", **(headers or {})})


def _part(template: str, name: str, **values: Any) -> str:
    """One macro of a template: what a swap replaces."""
    module = _templates().get_template(template).make_module(values)
    return str(getattr(module, name)())


def error_page(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as a page with a way on."""
    titles = {404: "Not found", 422: "This cannot be shown", 503: "Busy"}
    known = resolve_name(request.query_params.get("network", ""))
    return _page(
        "error.html", status, headers, page="", title=titles.get(status, "This did not work"),
        detail=detail, network=known, names=_names(),
    )  # fmt: skip


@functools.cache
def _names() -> list[str]:
    return sorted(all_cards(), key=natural)


@router.get("/")
async def atlas_page(request: Request) -> Response:
    """All networks: filters, a chart and the table."""
    query = atlas.read_query(dict(request.query_params))
    found = atlas.chosen(query)
    at = query.at or ("resnet50_v1_5" if any(n.name == "resnet50_v1_5" for n in found) else "")
    values: dict[str, Any] = {
        "page": "atlas", "query": query, "found": found, "count": len(atlas.networks()),
        "accuracies": sum(network.top1 is not None for network in atlas.networks()),
        "ranges": [atlas.histogram(each, query) for each in atlas.ranges()],
        "ideas": [(idea, idea in query.ideas, query.address(ideas=_toggled(query.ideas, idea))) for idea in atlas.IDEAS],
        "chart": chart(found, query.x, query.area, at),
        "peek": next((n for n in atlas.networks() if n.name == at), None), "at": at,
        "families": [(key, label, sum(n.family == key and n.top1 is not None for n in found)) for key, label in atlas.FAMILIES.items()],
        "across": atlas.ACROSS, "areas": atlas.AREAS,
        "most": {key: max((getattr(n, key) for n in found), default=1) for key in ("params", "macs", "memory")},
        "hindrance": None if found else atlas.hindrance(query),
        "is_filtered": bool(query.limits or query.ideas or query.text), "names": _names(),
    }  # fmt: skip
    if "x-swap" in request.headers:
        parts = {
            name: _part("atlas_parts.html", name, **values)
            for name in ("bars", "chips", "figure", "table", "count")
        }
        return JSONResponse(
            {
                "parts": parts,
                "say": f"{len(found)} of {len(atlas.networks())} networks",
                "url": query.address(),
            }
        )
    return _page("atlas.html", **values)


def _toggled(ideas: tuple[str, ...], idea: str) -> tuple[str, ...]:
    return tuple(each for each in ideas if each != idea) if idea in ideas else (*ideas, idea)


@router.get("/networks")
def networks_page() -> Response:
    """The table of the atlas."""
    return RedirectResponse("/#table", 302)


@router.get("/find")
def find_page(q: str = "") -> Response:
    """The network of a name, else the atlas of the networks whose names hold it."""
    text = q.strip()[:60]
    known = resolve_name(text) if text else None
    if known is not None:
        return RedirectResponse(f"/networks/{known}", 302)
    return RedirectResponse(f"/?{urlencode({'q': text})}" if text else "/", 302)


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
            return JSONResponse(_too_small(str(error)), 422)
        view = await run("network_view", settings.as_published, level, opened, pointed)
        problem = _too_small(str(error))
    chosen = view["pointed"] if pointed else ""
    shown = {"level": level, "open": ",".join(sorted(opened)), "layer": chosen, "at": at}
    address = _address(settings, shown)
    values: dict[str, Any] = {
        "page": "networks", "settings": settings, "view": view, "level": level, "levels": LEVELS,
        "knobs": _knobs(settings, view["options"]), "is_set": settings != settings.as_published,
        "downloads": _downloads(settings), "command": _command(settings), "problem": problem, "at": at,
        "smallest": find_entry(card.name).min_input_size, "address_of": functools.partial(_level_address, settings, shown),
    }  # fmt: skip
    if "x-swap" in request.headers:
        parts = {
            part: _part("network_parts.html", part, **values)
            for part in ("totals", "rows", "total_row", "takeaway")
        }
        return JSONResponse({"parts": parts, "say": view["say"], "url": address, "set": settings.query()})
    head = _head(card, find_entry(card.name))
    return _page("network.html", **values, **head, names=_names())


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


def _too_small(message: str) -> dict[str, Any]:
    """An error at the knob; with the size that works, where the message names one."""
    found = re.search(r"smallest (?:input|size) that works is \(?\d+(?:x|, )(\d+)", message)
    size = int(found[1]) if found else None
    return {"detail": message, "works": size}


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


def _head(card: Card, entry: Entry) -> dict[str, Any]:
    """The card."""
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
        "family": atlas.FAMILIES[family], "published": published_lines(card, entry), "paper_link": _link(card.paper.identifier),
    }  # fmt: skip


def _link(identifier: str) -> str:
    scheme, _, rest = identifier.partition(":")
    known = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    if scheme in known:
        return known[scheme] + rest
    return identifier if identifier.startswith("https://") else ""


@router.get("/compare")
async def compare_page(request: Request) -> Response:
    """Two networks side by side."""
    given = dict(request.query_params)
    a, b = given.get("a", "") or "vgg16", given.get("b", "") or "resnet50"
    first, second = both_settings(a, b, given.get("input", ""))
    found: dict[str, Any] = await workers_of(request).run("compare_view", first, second)
    values = {
        "page": "compare", "a": find_card(a), "b": find_card(b), "found": found, "input": given.get("input", ""),
        "title_a": figure_title(a)[0], "title_b": figure_title(b)[0], "names": _names(), "settings": (first, second),
    }  # fmt: skip
    from .compare_page import compare_context

    return _page("compare.html", **values, **compare_context(first, second, found))
