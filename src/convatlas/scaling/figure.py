"""Every rule along phi: MACs, latency, memory, and the published accuracy of the printed networks."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convatlas.catalog.accuracy import find_accuracy
from convatlas.drawing.palette import Palette
from convatlas.errors import unknown
from convatlas.plots.style import DPI, palette, styled
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, WIDTH, Base, open_base
from convatlas.scaling.latency import AUTO, LatencyModel
from convatlas.scaling.rules import RULES, Rule
from convatlas.scaling.search import Curve, size_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS = ("png", "svg", "pdf")
PHIS = tuple(-2 + 0.5 * i for i in range(13))
HUES = {
    "compound": "efficientnet",
    "fast": "densenet",
    "resnet-rs": "resnet",
    "efficientnet-v2": "nasnet",
    "depth": "inception",
    "width": "vgg",
    "resolution": "alexnet",
}
"""Which hue of the palette stands for a rule; rules of a family have its own."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A rule's costs.

    Attributes:
        rule: its name.
        phis: where it was looked at.
        values: by panel, one for each phi.
    """

    rule: str
    phis: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Printed:
    """A published network.

    Attributes:
        label: short name.
        phi: place on the curve of compound scaling.
        accuracy: published top-1, per cent; None where there is none.
        values: by panel.
    """

    label: str
    phi: float
    accuracy: float | None
    values: Mapping[str, float]


PANELS: Mapping[str, str] = {
    "macs": "multiply-adds of one image, millions",
    "latency": "latency of one image, ms",
    "memory": "memory of an inference, MB",
}


def draw_rules(
    network: str,
    *,
    form: str = "png",
    overrides: Mapping[str, Any] | None = None,
    phis: Sequence[float] = PHIS,
    theme: str = "light",
) -> bytes:
    """Draws what every rule does to a network along phi.

    Latency is the time model's: the roofline, brought to what `plan` measured here.

    Args:
        network: a family or a network.
        form: "png", "svg" or "pdf".
        overrides: other fields of its config to change.
        phis: where the rules are looked at, rising.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such network, form or theme.
        ValueError: the network cannot be scaled.
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    palette(theme)
    base = open_base(network, overrides)
    model = CostModel(base)
    timed = LatencyModel(base, model, 1, AUTO, None)
    timed.settle_engine()
    lines = [
        _line(base, rule, model, timed, tuple(phis))
        for name, rule in RULES.items()
        if name in HUES and set(rule.knobs) <= set(base.knobs)
    ]
    how = "by the roofline alone" if timed.engine == AUTO else f"by {timed.engine}, fitted to measurements"
    return _draw(base, lines, _printed(base, timed), form, how, theme)


def _line(base: Base, rule: Rule, model: CostModel, timed: LatencyModel, phis: tuple[float, ...]) -> Line:
    curve = Curve(base, rule, size_range(base, None))
    # Where all knobs are at their ends nothing grows any more.
    points = [curve.at(phi) for phi in phis]
    values = [_values(model, timed, point) for point in points]
    return Line(rule.name, phis, {name: tuple(each[name] for each in values) for name in PANELS})


def _values(model: CostModel, timed: LatencyModel, candidate: Candidate) -> dict[str, float]:
    return {
        "macs": model(candidate).macs / 1e6,
        "latency": timed.predict(candidate) * 1e3,
        "memory": model.memory(candidate) / 1e6,
    }


def _printed(base: Base, timed: LatencyModel) -> list[Printed]:
    found: list[Printed] = []
    reference = Curve(base, RULES["compound" if "depth" in base.knobs else "width"], size_range(base, None))
    names = base.family.printed
    for name in names:
        other = open_base(name, base.overrides)
        model = CostModel(other)
        for px in base.family.sizes or (other.input_size,):
            candidate = Candidate(other.knob(DEPTH), other.knob(WIDTH), px)
            accuracy = find_accuracy(name, (3, px, px)) if not base.overrides else None
            found.append(
                Printed(
                    label=_short(name, names) + (f" {px}" if base.family.sizes else ""),
                    phi=reference.phi_of(candidate),
                    accuracy=None if accuracy is None else accuracy.top1,
                    values=_values(model, timed.of(other, model), candidate),
                )
            )
    return [each for each in found if PHIS[0] - 4 <= each.phi]


def _short(name: str, names: Sequence[str]) -> str:
    """A name without what all share."""
    shared = len(_common(names)) if len(names) > 1 else 0
    return name[shared:].upper() if name[shared:].startswith("b") else name[shared:] or name


def _common(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first[:length].rfind("_") + 1]


def _draw(
    base: Base, lines: Sequence[Line], printed: Sequence[Printed], form: str, how: str, theme: str
) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with (
        styled(theme) as colours,
        rc_context({"font.size": 11, "svg.hashsalt": "convatlas", "svg.fonttype": "path"}),
    ):
        figure = Figure(figsize=(12.6, 9.4), dpi=DPI)
        figure.text(0.03, 0.965, f"Scaling {base.network}: every rule along phi", size=20, weight="bold")
        figure.text(
            0.03, 0.937,
            f"at phi a network may cost 2^phi times its base at {base.input_size} px; "
            f"dots are printed networks; latency {how}",
            size=12, color=colours.muted,
        )  # fmt: skip
        panels = figure.subplots(2, 2)
        figure.subplots_adjust(left=0.06, right=0.9, bottom=0.065, top=0.875, wspace=0.42, hspace=0.3)
        for axes, (name, title) in zip(panels.flat, PANELS.items(), strict=False):
            _draw_costs(axes, (name, title), lines, printed, colours)
        _draw_accuracy(panels.flat[3], printed, colours)
        stamps = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(buffer, format=form, metadata=stamps[form])
    return buffer.getvalue()


def _draw_costs(
    axes: Axes, panel: tuple[str, str], lines: Sequence[Line], printed: Sequence[Printed], colours: Palette
) -> None:
    from matplotlib.ticker import LogLocator

    name, title = panel
    hues = {rule: colours.networks[family] for rule, family in HUES.items()}
    _prepare(axes, title)
    axes.set_yscale("log")
    low, high = lines[0].phis[0], lines[0].phis[-1]
    for line in lines:
        # EfficientNetV2's is compound's until the input is at its largest.
        style = (0, (3, 2)) if line.rule == "efficientnet-v2" else "-"
        axes.plot(line.phis, line.values[name], color=hues[line.rule], lw=2.0, ls=style, zorder=3)
    inside = [each for each in printed if low <= each.phi <= high]
    axes.scatter([e.phi for e in inside], [e.values[name] for e in inside], 22, colours.ink, zorder=4)
    axes.set_xlim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(_plain)
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    _label_ends(axes, [(line.rule, line.values[name][-1], hues[line.rule]) for line in lines])


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """The rules' names at the right of their lines, moved apart where they would overlap."""
    low, high = (math.log(end) for end in axes.get_ylim())
    places = sorted(((math.log(value) - low) / (high - low), rule, colour) for rule, value, colour in ends)
    least, gap = -1.0, 0.062
    shown: list[tuple[float, float, str, str]] = []
    for share, rule, colour in places:
        least = max(share, least + gap)
        shown.append((share, least, rule, colour))
    over = max(0.0, shown[-1][1] - 1.0)
    for i, (share, place, rule, colour) in enumerate(shown):
        # What is pushed over the top pushes those below it back.
        place = min(place, 1.0 - gap * (len(shown) - 1 - i)) if over else place
        axes.plot([1.0, 1.025], [share, place], color=colour, lw=1.0, transform=axes.transAxes, clip_on=False)
        axes.text(1.035, place, rule, transform=axes.transAxes, va="center")


def _draw_accuracy(axes: Axes, printed: Sequence[Printed], colours: Palette) -> None:
    known = sorted(
        ((each.phi, each.accuracy, each.label) for each in printed if each.accuracy is not None),
        key=lambda each: each[0],
    )
    _prepare(axes, "published top-1 accuracy on ImageNet, %")
    if not known:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "none was published", transform=axes.transAxes, ha="center", color=colours.muted)
        return
    axes.plot([each[0] for each in known], [each[1] for each in known], color=colours.hair, lw=1.5, zorder=2)
    axes.scatter([each[0] for each in known], [each[1] for each in known], 30, colours.ink, zorder=4)
    for phi, accuracy, label in known:
        axes.annotate(label, (phi, accuracy), xytext=(6, -12), textcoords="offset points")
    axes.margins(0.08, 0.12)


def _prepare(axes: Axes, title: str) -> None:
    axes.set_title(title, size=14, pad=10)
    axes.set_xlabel("phi")
    axes.grid(True)
    axes.spines[:].set_visible(False)


def _say(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


_plain: Callable[[float, Any], str] = lambda value, _: _say(value)  # noqa: E731
