"""Two networks side by side."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from convatlas.catalog.cards import find_card
from convatlas.catalog.describe import figure_title

from ..api import both_settings, workers_of
from .compare_context import compare_context
from .render import names, page

router = APIRouter(include_in_schema=False)


@router.get("/compare")
async def compare_page(request: Request) -> Response:
    """Two networks side by side."""
    given = dict(request.query_params)
    a, b = given.get("a", "") or "vgg16", given.get("b", "") or "resnet50"
    first, second = both_settings(a, b, given.get("input", ""))
    found: dict[str, Any] = await workers_of(request).run("compare_view", first, second)
    return page(
        "compare.html",
        page="compare",
        a=find_card(a),
        b=find_card(b),
        found=found,
        input=given.get("input", ""),
        title_a=figure_title(a)[0],
        title_b=figure_title(b)[0],
        names=names(),
        settings=(first, second),
        **compare_context(first, second, found),
    )
