"""The atlas, and the ways to a network."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from convatlas.catalog.cards import resolve_name

from .. import atlas
from ..chart import chart
from .render import names, page, part

PARTS = ("bars", "chips", "figure", "table", "tally")
router = APIRouter(include_in_schema=False)


@router.get("/")
async def atlas_page(request: Request) -> Response:
    """All networks: filters, a chart and the table."""
    query = atlas.read_query(dict(request.query_params))
    values = _values(query)
    if "x-swap" not in request.headers:
        return page("atlas.html", **values)
    parts = {name: part("atlas_parts.html", name, **values) for name in PARTS}
    say = f"{len(values['found'])} of {values['count']} networks"
    return JSONResponse({"parts": parts, "say": say, "url": query.address()})


def _values(query: atlas.Query) -> dict[str, Any]:
    found, every = atlas.chosen(query), atlas.networks()
    at = query.at or ("resnet50_v1_5" if any(n.name == "resnet50_v1_5" for n in found) else "")
    with_accuracy = [network.family for network in found if network.top1 is not None]
    return {
        "page": "atlas",
        "query": query,
        "found": found,
        "count": len(every),
        "accuracies": sum(network.top1 is not None for network in every),
        "ranges": [atlas.histogram(each, query) for each in atlas.ranges()],
        "ideas": [
            (idea, idea in query.ideas, query.address(ideas=_toggled(query.ideas, idea)))
            for idea in atlas.IDEAS
        ],
        "chart": chart(found, query.x, query.area, at),
        "peek": next((n for n in every if n.name == at), None),
        "at": at,
        "families": [(key, label, with_accuracy.count(key)) for key, label in atlas.FAMILIES.items()],
        "across": atlas.ACROSS,
        "areas": atlas.AREAS,
        "most": {
            key: max((getattr(n, key) for n in found), default=1) for key in ("params", "macs", "memory")
        },
        "hindrance": None if found else atlas.hindrance(query),
        "is_filtered": bool(query.limits or query.ideas or query.text),
        "names": names(),
    }


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
