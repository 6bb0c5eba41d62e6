"""Two networks side by side: totals with ratios, and stages aligned by the side of their maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convatlas.sizing import Sheet, render

from . import phrases
from .networks import sized
from .outline import Section, sections_of
from .settings import Settings

_NUMBERS: tuple[tuple[str, Callable[[Sheet], int | None]], ...] = (
    ("params", lambda sheet: sheet.params),
    ("macs", lambda sheet: sheet.macs),
    ("activation_bytes", lambda sheet: sheet.activation_bytes),
    ("peak_inference_bytes", lambda sheet: sheet.peak_inference_bytes),
    ("training_bytes", lambda sheet: _training(sheet)),
    ("receptive_field_before_head", lambda sheet: before_head(sheet)),
    ("operations", lambda sheet: len(sheet.rows)),
)


def compared(a: Settings, b: Settings) -> dict[str, Any]:
    """Both networks, ratios of the second to the first, and their stages on common lines.

    Args:
        a: the first.
        b: the second.
    """
    sheets = sized(a), sized(b)
    totals: dict[str, Any] = {}
    for name, number in _NUMBERS:
        first, second = number(sheets[0]), number(sheets[1])
        ratio = second / first if first and second is not None else None
        totals[name] = {"a": first, "b": second, "ratio": ratio}
    return {
        "a": _without_rows(sheets[0]),
        "b": _without_rows(sheets[1]),
        "totals": totals,
        "stages": aligned(sections_of(sheets[0]), sections_of(sheets[1])),
    }


def _without_rows(sheet: Sheet) -> dict[str, Any]:
    return {key: value for key, value in render.record(sheet).items() if key != "layers"}


def _training(sheet: Sheet) -> int | None:
    try:
        return sheet.training_bytes
    except ValueError:
        return None


def before_head(sheet: Sheet) -> int | None:
    """The widest receptive field that is not of the whole input, in px."""
    sizes = [f.size for f in sheet.receptive_fields if f is not None and not f.is_global and f.size]
    return max((max(s for s in size if s is not None) for size in sizes), default=None)


def aligned(first: tuple[Section, ...], second: tuple[Section, ...]) -> list[dict[str, Any]]:
    """Stages of both, largest map first; those of one side of the map stand on one line.

    Several stages of one network with maps of one side stand on lines after one another.
    """
    sides = [_by_side(first), _by_side(second)]
    lines: list[dict[str, Any]] = []
    for side in sorted({*sides[0], *sides[1]}, reverse=True):
        left, right = sides[0].get(side, []), sides[1].get(side, [])
        for i in range(max(len(left), len(right))):
            a = left[i] if i < len(left) else None
            b = right[i] if i < len(right) else None
            lines.append({"side": side, "a": a, "b": b, "ratios": _ratios(a, b)})
    return lines


def _by_side(sections: tuple[Section, ...]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for section in sections:
        units = [part.unit for part in section.parts]
        shape = units[-1].shape
        side = shape[-1] if len(shape) > 2 else 1
        layers = section.layers
        found.setdefault(side, []).append(
            {
                "name": section.name,
                "what": phrases.stage(units),
                "output_shape": list(shape),
                "params": sum(layer.params for layer in layers),
                "macs": sum(layer.macs for layer in layers),
                "activation_bytes": sum(layer.bytes_written for layer in layers),
                "blocks": len(units),
            }
        )
    return found


def _ratios(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, float | None]:
    names = ("params", "macs", "activation_bytes")
    if a is None or b is None:
        return dict.fromkeys(names)
    return {name: b[name] / a[name] if a[name] else None for name in names}
