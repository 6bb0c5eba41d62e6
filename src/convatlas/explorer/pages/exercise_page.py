"""Exercises: a question, its marked answer, and a sheet of them as a PDF."""

from __future__ import annotations

import re
import textwrap
from html import escape
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..api import workers_of
from ..exercises import KINDS, LARGEST_SEED, Exercise, Window, exercise, mark
from ..settings import BadRequestError
from .render import names, page

router = APIRouter(include_in_schema=False)


@router.get("/exercises")
async def exercise_page(request: Request) -> Response:
    """A question; with an answer in the address, marked."""
    given = dict(request.query_params)
    question = exercise(given.get("kind", "") or "volume", _seed(given.get("seed", "") or "1"))
    answer = given.get("answer", "").strip()[:60]
    right, why = mark(question, answer) if answer else (False, "")
    return page(
        "exercise.html",
        page="exercises",
        names=names(),
        question=question,
        kinds=KINDS,
        answer=answer,
        right=right,
        why=why,
        shows="show" in given or right,
        link=_link,
        drawing=_drawing(question.window) if question.window is not None else "",
        last=LARGEST_SEED,
    )


@router.get("/exercises.pdf")
async def exercise_sheet(request: Request) -> Response:
    """A page with one exercise of each kind; its solutions where `solutions` is 1."""
    given = dict(request.query_params)
    seed, solved = _seed(given.get("seed", "") or "1"), given.get("solutions", "") == "1"
    svg = _sheet([exercise(kind, seed) for kind in KINDS], seed, solved)
    data: bytes = await workers_of(request).run("pdf", svg)
    name = f"exercises-{seed}{'-solutions' if solved else ''}.pdf"
    return Response(
        data,
        media_type="application/pdf",
        headers={"content-disposition": f'inline; filename="{name}"', "cache-control": "no-store"},
    )


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text):
        raise BadRequestError(f"`seed`={text[:20]!r}; expected a whole number from 0 to {LARGEST_SEED:,}")
    return int(text)


def _link(kind: str, seed: int, **more: str) -> str:
    return f"/exercises?{urlencode({'kind': kind, 'seed': seed, **more})}"


def _drawing(window: Window) -> str:
    """One row of the image with the first windows and the last, to scale."""
    whole = window.px + 2 * window.padding
    scale = 248 / whole
    wide = window.kernel * scale
    lefts = [i * window.stride * scale for i in range(min(4, window.places))]
    lefts.append((window.places - 1) * window.stride * scale)
    pad = window.padding * scale
    boxes = "".join(
        f'<rect class="{"k" if i in (0, len(lefts) - 1) else "k2"}" x="{left + 1:.1f}" y="20" '
        f'width="{wide:.1f}" height="16"/>'
        for i, left in enumerate(lefts)
    )
    step = 248 / max(window.places, window.px)
    places = "".join(
        f'<rect class="o" x="{1 + i * step:.2f}" y="80" width="{max(0.5, step - 0.5):.2f}" height="12"/>'
        for i in range(window.places)
    )
    last = (window.places - 1) * window.stride - window.padding
    title = f"Input, {window.px} px" + (f" and {window.padding} of padding on each side" if pad else "")
    first = f"first {-window.padding} – {window.kernel - 1 - window.padding}"
    said = f"{first}, last {last} – {last + window.kernel - 1}".replace("-", "−")
    return (
        f'<svg class="slide" viewBox="0 0 250 96" role="img" aria-label="{title}; {window.places} places">'
        f'<text x="1" y="12">{title}</text>'
        f'<rect class="in" x="{1 + pad:.1f}" y="20" width="{window.px * scale:.1f}" height="16"/>'
        f"{boxes}"
        f'<text x="1" y="52">{said}</text>'
        f'<text x="1" y="74">Output, {window.places} places</text>{places}</svg>'
    )


def _sheet(questions: list[Exercise], seed: int, solved: bool) -> str:
    """A page of A4, in points."""
    lines: list[tuple[float, str, str]] = []
    y = 92.0
    for number, question in enumerate(questions, 1):
        lines.append((y, "b", f"{number}. {KINDS[question.kind]}"))
        y += 15
        for text in textwrap.wrap(f"{question.given} {question.ask}", 92):
            lines.append((y, "", text))
            y += 13.5
        for text in question.worked if solved else ("",):
            lines.append((y, "m" if text else "line", text or ""))
            y += 13.5
        y += 21 if solved else 38
    drawn = "".join(map(_written, lines))
    title = f"Sizes of convolutional networks{': solutions' if solved else ''}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="595" height="842" viewBox="0 0 595 842" '
        'font-family="Liberation Sans, DejaVu Sans, sans-serif" font-size="10.5" fill="#17181a">'
        '<rect width="595" height="842" fill="#fff"/>'
        f'<text x="50" y="58" font-size="18" font-weight="bold">{title}</text>'
        f'<text x="545" y="58" font-size="9" text-anchor="end" fill="#666b72">seed {seed} · convatlas</text>'
        f"{drawn}</svg>"
    )


def _written(line: tuple[float, str, str]) -> str:
    y, kind, text = line
    if kind == "line":
        return f'<path d="M50 {y + 14:.1f}H545" stroke="#d2d2cc" stroke-width=".7"/>'
    extra: dict[str, Any] = {"b": ' font-weight="bold"', "m": ' fill="#1d55c4"'}
    return f'<text x="50" y="{y:.1f}"{extra.get(kind, "")}>{escape(text)}</text>'
