"""The plans of `convatlas scale`, in each format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convatlas.cli.table_format import Form, render
from convatlas.scaling.budget import say_amount
from convatlas.tables import Grid

if TYPE_CHECKING:
    from convatlas.scaling import Plan


def plans_text(plans: list[Plan], form: Form = "table") -> str:
    """What each rule would give; in a table for people, what the first plan is stands above it.

    Args:
        plans: the one that was asked for first.
        form: the format.
    """
    columns = ("rule", "network", "depth", "width", "px", "params", "MACs", "memory", "ms", "use")
    rows = [_row(plan) for plan in plans]
    grid = Grid(columns, 2, rows, (), [], lesser=("memory", "params", "px"))
    text = render(form, grid, records=[plan.record() for plan in plans], title="plans")
    return f"{_first(plans[0])}\n{text}" if form == "table" else text


def _first(plan: Plan) -> str:
    knobs = ", ".join(f"{key}={value}" for key, value in plan.overrides.items()) or "as published"
    lines = [
        f"{plan.network} with {knobs}, at {plan.input_size} px",
        f"  {plan.params:,} parameters, {plan.macs:,} MACs, {plan.activations:,} activations, "
        f"{say_amount('memory', plan.memory)} of memory for a batch of {plan.batch_size}",
    ]
    if plan.depths:
        lines.append(f"  blocks in each stage: {', '.join(map(str, plan.depths))}")
    if plan.latency_ms is not None:
        how = "measured" if plan.measured else "predicted, not measured"
        lines.append(f"  {plan.latency_ms:.3f} ms a batch of {plan.batch_size} by {plan.engine}, {how}")
    used = ", ".join(f"{share:.1%} of {kind}" for kind, share in plan.use.items())
    lines += [f"  uses {used}", f"  rule {plan.rule}: {plan.source}", f"  train it: {plan.command()}"]
    return "\n".join(lines) + "\n"


def _row(plan: Plan) -> tuple[str, ...]:
    return (
        plan.rule,
        plan.network,
        "-" if plan.depth_mult is None else f"{plan.depth_mult:g}",
        "-" if plan.width_mult is None else f"{plan.width_mult:g}",
        str(plan.input_size),
        say_amount("params", plan.params),
        say_amount("macs", plan.macs),
        say_amount("memory", plan.memory),
        "-" if plan.latency_ms is None else f"{plan.latency_ms:.2f}{'' if plan.measured else '~'}",
        f"{max(plan.use.values()):.1%}",
    )
