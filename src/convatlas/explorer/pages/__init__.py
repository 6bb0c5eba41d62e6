"""The pages. Each is whole without scripts; a script swaps parts of it when a knob is turned."""

from __future__ import annotations

from fastapi import APIRouter

from . import atlas_page, compare_page, exercise_page, network_page
from .render import error_page

__all__ = ["error_page", "router"]

router = APIRouter(include_in_schema=False)
for _page in (atlas_page, network_page, compare_page, exercise_page):
    router.include_router(_page.router)
