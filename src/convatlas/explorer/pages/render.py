"""Templates, pages and their parts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from convatlas.catalog.cards import all_cards, resolve_name
from convatlas.catalog.index import natural

from .. import static
from ..numbers import mib, short


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
    cast("dict[str, Any]", environment.globals)["address"] = static.address
    return environment


def page(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """A page of a template. Values are whatever it names."""
    html = _templates().get_template(template).render(values)
    return HTMLResponse(html, status, headers={"cache-control": "no-store", **(headers or {})})


def part(template: str, name: str, **values: Any) -> str:
    """One macro of a template: what a swap replaces."""
    module = _templates().get_template(template).make_module(values)
    return str(getattr(module, name)())


def error_page(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as a page with a way on."""
    titles = {404: "Not found", 422: "This cannot be shown", 503: "Busy"}
    known = resolve_name(request.query_params.get("network", ""))
    return page(
        "error.html", status, headers, page="", title=titles.get(status, "This did not work"),
        detail=detail, network=known, names=names(),
    )  # fmt: skip


@functools.cache
def names() -> list[str]:
    """Every network, in natural order."""
    return sorted(all_cards(), key=natural)
