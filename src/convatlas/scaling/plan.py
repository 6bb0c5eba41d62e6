"""`plan`: the network of a family for a budget."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from convatlas.catalog.cards import find_card
from convatlas.catalog.index import find_entry
from convatlas.models.model_file import ModelFile, without_data
from convatlas.models.network import check_count
from convatlas.scaling.budget import Budget, read_budget
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, WIDTH, Base, open_base
from convatlas.scaling.latency import AUTO, LatencyModel, check_engine
from convatlas.scaling.measure import measured_search
from convatlas.scaling.question import Question
from convatlas.scaling.rules import RULES, Rule, check_knobs, compound, find_rule
from convatlas.scaling.search import (
    Curve,
    Found,
    Space,
    Value,
    check_agreement,
    choose,
    exact_value,
    search,
    size_range,
)

DEFAULT_RULE, WITHOUT_DEPTH = "compound", "width"
"""The rule where none is named; of networks whose depth cannot be turned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(ModelFile):
    """A scaled network and what it costs.

    `network`, `overrides` and `input_size` are those of `ModelFile`, so that `create_model` takes a plan.

    Attributes:
        rule: by which depth, width and input size were chosen.
        params: parameters.
        macs: multiply-adds of one image.
        latency_ms: median milliseconds of a batch on this machine: measured where `measured`, else
            predicted; None where no latency was asked for.
        measured: whether `latency_ms` was measured.
        engine: that the latency is for; "" where there is none.
        batch_size: B of the latency and of the memory.
        depth_mult: of the network's config; None where it has no such knob.
        width_mult: of the network's config; None where it has no such knob.
        depths: blocks in each stage; empty where depth cannot be turned.
        phi: place on the rule's curve: nominally, the network costs 2**phi times what the base costs.
        activations: elements that the operations write for one image.
        memory: most bytes that an inference holds at once, weights included.
        use: share of each budget that the plan uses, by kind.
        source: where the rule comes from.
    """

    rule: str
    params: int
    macs: int
    latency_ms: float | None = None
    measured: bool = False
    engine: str = ""
    batch_size: int = 1
    depth_mult: float | None = None
    width_mult: float | None = None
    depths: tuple[int, ...] = ()
    phi: float = 0.0
    activations: int = 0
    memory: int = 0
    use: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    source: str = ""

    def record(self) -> dict[str, Any]:
        """All fields, for JSON."""
        first = ("rule", "network", "overrides", "input_size", "params", "macs", "latency_ms")
        fields = dataclasses.asdict(self)
        return {key: fields[key] for key in (*first, *(key for key in fields if key not in first))}

    def command(self, data: str = "DATA") -> str:
        """The command that trains the plan's network."""
        fields = without_data(self.overrides).items()
        knobs = "".join(f" --model {shlex.quote(f'{key}={value}')}" for key, value in fields)
        return f"convatlas train {self.network}{knobs} --input {self.input_size} --data {data}"

    def to_toml(self) -> str:
        """The plan as a file that `read_model_file` reads: the network on top, the rest under `[plan]`."""
        rest = {key: value for key, value in self.record().items() if key not in _MODEL_FIELDS}
        return self.model_toml(comment=f"A plan of `convatlas scale`, by the rule {self.rule}.", plan=rest)


_MODEL_FIELDS = tuple(field.name for field in dataclasses.fields(ModelFile))


def plan(
    network: str,
    *,
    macs: str | float | None = None,
    params: str | float | None = None,
    memory: str | float | None = None,
    latency: str | float | None = None,
    rule: str | Rule | None = None,
    factors: tuple[float, float, float] | None = None,
    input_range: tuple[int, int] | None = None,
    batch_size: int = 1,
    engine: str = AUTO,
    threads: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    space: Space | None = None,
    tell: Callable[[str], None] | None = None,
) -> Plan:
    """The network of a family for a budget: depth, width and input size by a rule, with exact costs.

    MACs and parameters are those that `size` gives. Latency is measured: a time model, fitted to what was
    measured on this machine, says what to try; the best few are built, run by the engine that serves fastest
    and timed.

    Args:
        network: a family, such as "efficientnet", or a network, such as "resnet34".
        macs: most multiply-adds of one image: a number, or text such as "800M".
        params: most parameters: a number, or text such as "10M".
        memory: most bytes that an inference holds at once: a number, or text such as "200MB".
        latency: most seconds of a batch: a number, or text such as "20ms".
        rule: one of `RULES`, or a `Rule` of your own; None for "compound", or "width" where depth cannot be
            turned.
        factors: alpha, beta and gamma of "compound", in place of 1.2, 1.1 and 1.15.
        input_range: smallest and largest input, in px.
        batch_size: B of latency and memory.
        engine: that latency is for; "auto" for the fastest that is found.
        threads: that work on a batch; None for `torch.get_num_threads()`.
        overrides: other fields of the network's config to change, such as `{"num_classes": 10}`.
        space: networks to choose from; None for those near the rule's curve.
        tell: is told a line for each measurement.

    Returns:
        The plan; of several budgets it keeps all. Of networks that use 99 % or more of the tightest, it is
        the one nearest to the rule's curve; where there are none, the one that uses most.

    Raises:
        UnknownNameError: there is no such family, network, rule, engine or config field.
        ValueError: a budget is no amount, cannot be met, or contradicts another; or the network has no knob
            for the rule.
    """
    question, chosen = _ask(
        network, rule, factors, input_range, batch_size, engine, threads, overrides, space,
        macs=macs, params=params, memory=memory, latency=latency,
    )  # fmt: skip
    return _answer(question, chosen, CostModel(question.base), fine=True, tell=tell)


def compare_rules(network: str, *, rule: str | Rule | None = None, **given: Any) -> list[Plan]:
    """What each rule gives for a budget: first the one that is asked for, then the others that reach it.

    Latency is measured for the first; for the others it is what the fitted time model predicts.

    Args:
        network: as `plan` takes it.
        rule: as `plan` takes it.
        given: other arguments of `plan`.

    Raises:
        UnknownNameError: as `plan`.
        ValueError: as `plan`, for the rule that is asked for.
    """
    amounts = {kind: given.pop(kind, None) for kind in ("macs", "params", "memory", "latency")}
    tell = given.pop("tell", None)
    defaults: dict[str, Any] = {
        "factors": None, "input_range": None, "batch_size": 1, "engine": AUTO, "threads": None,
        "overrides": None, "space": None,
    }  # fmt: skip
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise TypeError(f"compare_rules() got an unexpected keyword argument {unknown[0]!r}")
    arguments = defaults | given
    question, chosen = _ask(network, rule, *arguments.values(), **amounts)
    model = CostModel(question.base)
    plans = [_answer(question, chosen, model, fine=True, tell=tell)]
    timed = LatencyModel(question.base, model, question.batch_size, plans[0].engine or AUTO, question.threads)
    for name, other in RULES.items():
        if name in (chosen.name, "grid") or not set(other.knobs) <= set(question.base.knobs):
            continue
        try:
            plans.append(_predicted(question, other, model, timed))
        except ValueError:  # A rule that does not reach the budget has no plan.
            continue
    return plans


def describe(
    network: str,
    *,
    depth_mult: float | None = None,
    width_mult: float | None = None,
    input_size: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    batch_size: int = 1,
) -> Plan:
    """The plan with these multipliers, without a budget: exact costs of one point.

    Args:
        network: a family or a network.
        depth_mult: of the network's config; None for its own.
        width_mult: of the network's config; None for its own.
        input_size: px; None for the published size.
        overrides: other fields of the config to change.
        batch_size: B of the memory.

    Raises:
        UnknownNameError: there is no such family, network or field.
        ValueError: a multiplier is out of range, or the network does not have it.
    """
    base = open_base(network, overrides)
    for field, value, knob in ((DEPTH, depth_mult, "depth"), (WIDTH, width_mult, "width")):
        if value is not None and knob not in base.knobs:
            raise ValueError(f"`{field}`={value!r}; {base.network} has no such knob")
    candidate = Candidate(
        base.knob(DEPTH) if depth_mult is None else depth_mult,
        base.knob(WIDTH) if width_mult is None else width_mult,
        base.input_size if input_size is None else input_size,
    )
    check_count("input_size", candidate.input_size, least=base.min_input_size)
    question = Question(base=base, budget=Budget(), sizes=size_range(base, None), batch_size=batch_size)
    curve = Curve(base, RULES[DEFAULT_RULE], question.sizes)
    return _make_plan(question, RULES["printed"], CostModel(base), Found(candidate, curve.phi_of(candidate)))


def _ask(
    network: str,
    rule: str | Rule | None,
    factors: tuple[float, float, float] | None,
    input_range: tuple[int, int] | None,
    batch_size: int,
    engine: str,
    threads: int | None,
    overrides: Mapping[str, Any] | None,
    space: Space | None,
    **amounts: str | float | None,
) -> tuple[Question, Rule]:
    """Resolves names, and refuses what makes no sense before anything is computed."""
    budget = read_budget(**amounts)
    base = open_base(network, overrides)
    if rule is None:
        rule = DEFAULT_RULE if "depth" in base.knobs else WITHOUT_DEPTH
    chosen = find_rule(rule) if isinstance(rule, str) else rule
    if factors is not None:
        if chosen.name not in ("compound", "grid"):
            raise ValueError(f"`factors`={factors}; only the rule compound has them, not {chosen.name}")
        chosen = dataclasses.replace(compound(*factors), name=chosen.name)
    elif chosen.name == "grid":
        raise ValueError(
            "`--rule grid` needs --data: its factors come from trainings (in Python: `scaling.grid_search`, "
            "whose factors `plan` takes)"
        )
    check_knobs(chosen, base.network, base.knobs)
    check_count("batch_size", batch_size, least=1)
    check_engine(engine)
    sizes = size_range(base, input_range)
    question = Question(
        base=base,
        budget=budget,
        sizes=sizes,
        batch_size=batch_size,
        engine=engine,
        space=space,
        threads=threads,
    )
    return question, chosen


def _answer(
    question: Question, rule: Rule, model: CostModel, *, fine: bool, tell: Callable[[str], None] | None
) -> Plan:
    timed = LatencyModel(question.base, model, question.batch_size, question.engine, question.threads)
    if question.budget.latency is None:
        return _predicted(question, rule, model, None, fine=fine)
    if rule.name == "printed":
        return _predicted(question, rule, model, timed)
    found, seconds = measured_search(
        _curve(question, rule), _value(question, model, timed), question, timed, tell
    )
    return _make_plan(question, rule, model, found, timed, seconds)


def _predicted(
    question: Question, rule: Rule, model: CostModel, timed: LatencyModel | None, *, fine: bool = False
) -> Plan:
    """The plan by the cost model, and by the time model where latency is limited."""
    if question.budget.latency is None:
        timed = None
    if rule.name == "printed":
        return _printed(question, timed)
    curve, value = _curve(question, rule), _value(question, model, timed)
    if question.space is None:
        found = search(curve, value, question.budget, fine=fine)
    else:
        found = _search_space(curve, value, question)
    return _make_plan(question, rule, model, found, timed)


def _curve(question: Question, rule: Rule) -> Curve:
    return Curve(question.base, rule, question.sizes)


def _value(question: Question, model: CostModel, timed: LatencyModel | None) -> Value:
    exact = exact_value(model, question.batch_size)

    def value(kind: str, candidate: Candidate) -> float:
        if kind != "latency":
            return exact(kind, candidate)
        if timed is None:
            raise ValueError("no time model")
        return timed.predict(candidate)

    return value


def _search_space(curve: Curve, value: Value, question: Question) -> Found:
    candidates = list(question.space or ())
    best = choose(candidates, curve.distance, value, question.budget)
    if best is None:
        raise ValueError(f"{question.budget}: none of the {len(candidates)} networks of the space keeps it")
    check_agreement(curve, value, question.budget, best)
    return Found(best, curve.phi_of(best))


def _printed(question: Question, timed: LatencyModel | None) -> Plan:
    """The published network of the family that uses the budget best."""
    base, budget = question.base, question.budget
    plans: list[Plan] = []
    for name in base.family.printed or (base.network,):
        other = open_base(name, base.overrides)
        model = CostModel(other)
        clock = None if timed is None else timed.of(other, model)
        for px in base.family.sizes or (other.input_size,):
            if not question.sizes[0] <= px <= question.sizes[1]:
                continue
            found = Found(Candidate(other.knob(DEPTH), other.knob(WIDTH), px), 0.0)
            if _fits(other, found.candidate, _value(question, model, clock), budget):
                asked = dataclasses.replace(question, base=other)
                plans.append(_make_plan(asked, RULES["printed"], model, found, clock))
    if not plans:
        names = ", ".join(base.family.printed or (base.network,))
        raise ValueError(
            f"{budget}: no printed network of {base.network}'s family keeps it; there are {names}"
        )
    return max(plans, key=lambda each: max(each.use.values()))


def _fits(base: Base, candidate: Candidate, value: Value, budget: Budget) -> bool:
    """Whether a printed network keeps the budgets; by the catalog where it has the numbers."""
    known: dict[str, float] = {}
    if not base.overrides and candidate.input_size == find_card(base.network).input_size[-1]:
        entry = find_entry(base.network)
        known = {"params": entry.params, "macs": entry.macs}
    return all(
        (known[kind] if kind in known else value(kind, candidate)) <= limit
        for kind, limit in budget.asked.items()
    )


def _make_plan(
    question: Question,
    rule: Rule,
    model: CostModel,
    found: Found,
    timed: LatencyModel | None = None,
    seconds: float | None = None,
) -> Plan:
    """The plan of a candidate, with the costs of `size`."""
    base, candidate = question.base, found.candidate
    params, macs = model(candidate)
    knobs = model.knobs(candidate)
    changed = {field: value for field, value in knobs.items() if value != base.knob(field)}
    memory = model.memory(candidate, question.batch_size)
    predicted = timed.predict(candidate) if timed is not None and seconds is None else seconds
    costs = {"macs": macs, "params": params, "memory": memory, "latency": predicted or 0.0}
    return Plan(
        network=base.network,
        overrides={**base.overrides, **changed},
        input_size=candidate.input_size,
        rule=rule.name,
        params=params,
        macs=macs,
        latency_ms=None if predicted is None else predicted * 1e3,
        measured=seconds is not None,
        engine=timed.engine if timed is not None else "",
        batch_size=question.batch_size,
        depth_mult=knobs.get(DEPTH),
        width_mult=knobs.get(WIDTH),
        depths=model.depths(candidate) if "depth" in base.knobs else (),
        phi=round(found.phi, 3),
        activations=model.activations(candidate),
        memory=memory,
        use={kind: costs[kind] / limit for kind, limit in question.budget.asked.items()},
        source=rule.source,
    )
