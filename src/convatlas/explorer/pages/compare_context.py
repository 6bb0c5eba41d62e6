"""What the page that compares two networks shows. Needs no torch."""

from __future__ import annotations

import math
from typing import Any

from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import find_card
from convatlas.catalog.describe import figure_title

from ..numbers import mib, ratio
from ..settings import Settings

_OCTAVES = 3  # The bars reach from 1/8 to 8.
_TOTALS = (
    ("params", "Parameters", "{:,}".format, True),
    ("macs", "Multiply-adds", "{:,}".format, True),
    ("activation_bytes", "Activations, MiB", mib, True),
    ("peak_inference_bytes", "Inference peak, MiB", mib, True),
    ("training_bytes", "Training, MiB", mib, True),
    ("receptive_field_before_head", "Sees before head, px", "{:,}".format, False),
    ("operations", "Operations", "{:,}".format, False),
)


def compare_context(a: Settings, b: Settings, found: dict[str, Any]) -> dict[str, Any]:
    """Totals with bars, stages with bars, what differs, and the answer in a sentence."""
    cards = find_card(a.network), find_card(b.network)
    tags = [set(card.tags) for card in cards]
    return {
        "sentence": _sentence(figure_title(b.network)[0], found["totals"]),
        "totals": [_total(*each, found["totals"]) for each in _TOTALS],
        "accuracy": _accuracy(a.network, b.network),
        "stages": _stages(found["stages"]),
        "only_a": sorted(tags[0] - tags[1]),
        "only_b": sorted(tags[1] - tags[0]),
    }


def _sentence(second: str, totals: dict[str, Any]) -> str:
    def times(name: str) -> str:
        return ratio(totals[name]["ratio"])

    return (
        f"{second} has {times('params')} of the parameters and {times('macs')} of the multiply-adds, "
        f"and writes {times('activation_bytes')} times the activations."
    )


def _total(name: str, label: str, text: Any, is_cost: bool, totals: dict[str, Any]) -> dict[str, Any]:
    entry = totals[name]
    value: float | None = entry["ratio"]
    middle, half = 132.0, 88.0
    octaves = 0.0 if not value else max(-_OCTAVES, min(_OCTAVES, math.log2(value)))
    long = half * abs(octaves) / _OCTAVES
    kind = "same" if not is_cost else "less" if octaves < 0 else "more"
    return {
        "label": label,
        "a": "–" if entry["a"] is None else text(entry["a"]),
        "b": "–" if entry["b"] is None else text(entry["b"]),
        "ratio": ratio(value),
        "x": f"{middle if octaves >= 0 else middle - long:.1f}",
        "width": f"{long:.1f}",
        "kind": kind,
    }


def _accuracy(a: str, b: str) -> dict[str, str]:
    found = [find_accuracy(name) for name in (a, b)]
    shown = ["–" if each is None else f"{each.top1:.1f}" for each in found]
    protocols = [each.protocol.replace("ImageNet val, %, ", "") if each is not None else "" for each in found]
    if not all(protocols):
        said = "not published for both"
    elif protocols[0] == protocols[1]:
        said = f"difference {found[1].top1 - found[0].top1:+.1f} points, {protocols[0]}"  # type: ignore[union-attr]
    else:
        said = f"no ratio: {protocols[0]} against {protocols[1]}"
    return {"a": shown[0], "b": shown[1], "said": said}


def _stages(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sides = [each for line in stages for each in (line["a"], line["b"]) if each is not None]
    most = {name: max((each[name] for each in sides), default=1) or 1 for name in ("macs", "params")}
    lines: list[dict[str, Any]] = []
    for line in stages:
        shown: dict[str, Any] = {"side": line["side"], "ratios": line["ratios"]}
        for key in ("a", "b"):
            each = line[key]
            shown[key] = each and {
                **each,
                "macs_width": _width(each["macs"], most["macs"]),
                "params_width": _width(each["params"], most["params"]),
            }
        shown["macs_ratio"] = ratio(line["ratios"]["macs"])
        shown["params_ratio"] = ratio(line["ratios"]["params"])
        lines.append(shown)
    return lines


def _width(value: int, most: int) -> str:
    return f"{max(0.4, 280 * value / most) if value else 0:.1f}"
