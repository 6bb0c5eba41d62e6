"""What worker processes do: everything that builds a network. Each task returns plain values."""

from __future__ import annotations

import functools
import json
from typing import Any

from convatlas.catalog.describe import figure_title
from convatlas.drawing import draw
from convatlas.escape import json_text
from convatlas.sizing import Sheet, render
from convatlas.sizing.outline import mib
from convatlas.sizing.roofline import estimate, find_profile

from . import phrases, sheet
from .comparison import before_head, compared
from .networks import build, sized
from .numbers import short
from .options import options_of
from .outline import Section, lines_of, sections_of
from .settings import Settings

_FORMATS = {"csv": render.to_csv, "md": render.to_markdown, "latex": render.to_latex}


def size_text(settings: Settings, form: str, layers: bool) -> str:
    """A sheet as JSON, CSV, Markdown or LaTeX, as `convatlas size` writes it."""
    found = sized(settings)
    if form == "json":
        return render.to_json(found, _seconds(found))
    return _FORMATS[form](found, layers=layers)


def _seconds(found: Sheet) -> float | None:
    """The estimate of a forward's time, where this machine was measured with this dtype."""
    profile = find_profile()
    name = str(found.dtype).removeprefix("torch.")
    return None if profile is None or name not in profile.rates else estimate(found, profile)


def compare_text(a: Settings, b: Settings) -> str:
    """Two networks and their ratios, as JSON."""
    return json_text(compared(a, b), indent=2) + "\n"


def compare_view(a: Settings, b: Settings) -> dict[str, Any]:
    """The same as plain values."""
    return compared(a, b)


def figure(settings: Settings, form: str, options: dict[str, Any]) -> bytes:
    """A figure as `convatlas draw` writes it: SVG, PNG of two px each, or PDF."""
    title, note = figure_title(settings.network)
    drawn = draw(build(settings), settings.input_size, title=title, note=note, **options)
    if form == "svg":
        return drawn.svg.encode()
    from convatlas.drawing.raster import to_pdf, to_png

    return to_png(drawn.svg, 2.0) if form == "png" else to_pdf(drawn.svg)


def pdf(svg: str) -> bytes:
    """An SVG as PDF."""
    from convatlas.drawing.raster import to_pdf

    return to_pdf(svg)


@functools.lru_cache(maxsize=9)
def history(chart: str, theme: str) -> str:
    """A chart of the history of networks, as SVG."""
    from convatlas.plots.history import draw_accuracy, draw_depth, draw_timeline

    if chart == "ideas":
        return draw_timeline(theme=theme).svg
    return draw_accuracy(theme=theme).svg if chart == "accuracy" else draw_depth((), theme=theme).svg


@functools.lru_cache(maxsize=8)
def _sections(settings: Settings) -> tuple[Section, ...]:
    return sections_of(sized(settings))


def network_view(settings: Settings, level: str, opened: frozenset[str], pointed: str) -> dict[str, Any]:
    """What a network's page shows of its numbers.

    Args:
        settings: the knobs.
        level: stages, blocks or operations.
        opened: keys of open blocks.
        pointed: key of the line that is lit; the first where there is none of that name.
    """
    found = sized(settings)
    lines = lines_of(_sections(settings), level, opened)
    keys = [line.key for line in lines if line.kind != "stage" or level == "stages"]
    if pointed not in keys:
        below = [key for key in keys if pointed and key.startswith(f"{pointed}.")]
        pointed = below[0] if below else _first_spatial(lines, keys)
    return {
        "body": sheet.body(lines, pointed),
        "foot": sheet.foot(found),
        "totals": _totals(settings, found),
        "options": options_of(settings),
        "say": _sentence(settings, found),
        "pointed": pointed,
        "operations": len(found.rows),
        "python": _python(settings),
    }


def _first_spatial(lines: Any, keys: list[str]) -> str:
    """The line lit at first: the deepest that does not see everything, so that there is something to see."""
    seen = [
        line.key
        for line in lines
        if line.key in keys and line.field is not None and len(line.field.size) == 2
        if None not in line.field.size and max(line.field.size) <= 64
    ]
    return seen[-1] if seen else (keys[0] if keys else "")


def _totals(settings: Settings, found: Sheet) -> list[dict[str, Any]]:
    """The totals, each with its ratio to the published setting where a knob is turned."""
    now = _values(found)
    base = _values(sized(settings.as_published)) if settings != settings.as_published else None
    totals: list[dict[str, Any]] = []
    for name, (value, shown, unit, label) in now.items():
        before = base[name][0] if base is not None and base[name][0] else None
        ratio = None if before is None or value is None else value / before
        totals.append({"name": name, "label": label, "shown": shown, "unit": unit, "delta": _delta(ratio)})
    totals.append(_training(found))
    return totals


def _values(found: Sheet) -> dict[str, tuple[float | None, str, str, str]]:
    widest = before_head(found)
    macs = phrases.grouped(found.macs) + ("" if found.macs_counted else "+")
    return {
        "params": (found.params, phrases.grouped(found.params), "", "Parameters"),
        "macs": (found.macs, macs, "", "Multiply-adds"),
        "memory": (found.activation_bytes, mib(found.activation_bytes), "MiB", "Activations"),
        "peak": (found.peak_inference_bytes, mib(found.peak_inference_bytes), "MiB", "Inference peak"),
        "rf": (widest, "all" if widest is None else str(widest), "px", "Sees, before head"),
    }


def _delta(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return "same" if abs(ratio - 1) < 5e-4 else f"×{ratio:.3g}"


def _training(found: Sheet) -> dict[str, Any]:
    """Memory of a training step, in parts; nothing where the network cannot be trained on this input."""
    try:
        memory = found.training_memory()
    except ValueError as error:
        return {
            "name": "training",
            "label": "Training",
            "shown": "not possible",
            "unit": "",
            "why": str(error),
        }
    optimizer = {"sgd": "state", "momentum": "momentum"}.get(found.request.optimizer, "optimiser state")
    parts = [
        ("a", memory.params + memory.buffers, "weights"),
        ("b", memory.gradients, "gradients"),
        ("c", memory.optimizer, optimizer),
        ("d", memory.saved, "kept"),
    ]
    whole = max(1, memory.total)
    bars: list[dict[str, Any]] = []
    x = 0.0
    for colour, value, _ in parts:
        wide = 300 * value / whole
        bars.append({"colour": colour, "x": f"{x:.1f}", "width": f"{max(0.0, wide - 1):.1f}"})
        x += wide
    words = " + ".join(f"{mib(value)} {name}" for _, value, name in parts if value)
    return {
        "name": "training", "label": "Training", "shown": mib(memory.total), "unit": "MiB",
        "bars": bars, "words": words,
    }  # fmt: skip


def _sentence(settings: Settings, found: Sheet) -> str:
    text = f"{short(found.macs)} multiply-adds, {short(found.params)} parameters"
    if settings == settings.as_published:
        return f"{text}, as published"
    base = sized(settings.as_published)
    ratio = found.macs / base.macs if base.macs else 1.0
    return f"{text}; {ratio:.3g} times the multiply-adds as published"


def _python(settings: Settings) -> str:
    """The line that builds what is seen."""
    options = {option.name: option for option in options_of(settings)}
    words = [json.dumps(settings.network)]
    if settings.input_size[0] != settings.as_published.input_size[0]:
        words.append(f"in_chans={settings.input_size[0]}")
    for name, value in settings.options:
        kind = options[name].kind if name in options else "whole"
        text = {"choice": json.dumps(value), "switch": value.capitalize(), "list": f"({value},)"}.get(
            kind, value
        )
        words.append(f"{name}={text}")
    return f"convatlas.create_model({', '.join(words)})"
