"""How `convatlas.optimize` decides, with engines that take the time they are told to, by a fake clock."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convatlas
from convatlas.engines import optimize as optimize_room
from convatlas.engines import request, search, timing, worker
from convatlas.engines.backend import BackendConfig, EngineError
from convatlas.engines.engine import Engine
from convatlas.engines.worker import estimate_latency
from convatlas.engines.worker_pool import LATE

Times = Callable[[int], float]
"""Seconds of the n-th call."""


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclasses.dataclass
class Way:
    """An engine in one setting: its first look, its calls, how it agrees; and what was asked of it."""

    look: float
    call: float | Times | None = None
    config: BackendConfig = dataclasses.field(default_factory=BackendConfig)
    error: float = 0.0
    same_top: float = 1.0
    rounds: int = 0
    calls: int = 0
    checked: int = 0
    closed: int = 0
    stops_after: int = 10**9

    def seconds(self) -> float:
        number = self.calls
        self.calls += 1
        call = self.look if self.call is None else self.call
        return call(number) if callable(call) else call


class FakeHandle:
    """In place of a process."""

    def __init__(self, engine: str, ways: Sequence[Way], clock: Clock, folder: Path) -> None:
        self.engine, self.ways, self.clock = engine, {way.config: way for way in ways}, clock
        self.deadlines: dict[str, float] = {}
        (folder / engine).mkdir()

    def ask(self, do: str, deadline: float, **details: Any) -> dict[str, Any]:
        self.deadlines.setdefault(do, deadline - self.clock.now)
        if do == "precisions":
            return {"precisions": list(dict.fromkeys(config.precision for config in self.ways))}
        if do == "build":
            found = [config for config in self.ways if config.precision == details["precision"]]
            return {"configs": [dataclasses.asdict(config) for config in found]}
        way = self.ways[details["config"]]
        if do == "check":
            way.checked += 1
            self.clock.now += way.look
            return {"error": way.error, "same_top": way.same_top, "images": 64, "seconds": way.look}
        if do == "close":
            way.closed += 1
            return {}
        way.rounds += 1
        if way.rounds > way.stops_after:
            raise EngineError(LATE)
        found = [way.seconds() for _ in range(details["calls"])]
        self.clock.now += sum(found)
        return {"seconds": found}


class FakeNet(nn.Module):
    """The network itself, which takes its time too."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds
        self.calls += 1
        return x.flatten(1)[:, :3]


class House:
    """Asks `convatlas.optimize`, with engines that are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.patch = monkeypatch
        self.fails_here: set[str] = set()
        self.handles: dict[str, FakeHandle] = {}
        self.slow: set[str] = set()
        clock = SimpleNamespace(
            monotonic=self.clock.read, perf_counter=self.clock.read, sleep=self.clock.sleep
        )
        for module in (optimize_room, search, timing, worker):
            monkeypatch.setattr(module, "time", clock)
        for module in (timing, worker):
            monkeypatch.setattr(module, "steal_time", lambda: 0.0)
        for module in (optimize_room, search, request):
            monkeypatch.setattr(module, "find_engine", self.find)
        monkeypatch.setattr(search, "_export", lambda *_: "")
        monkeypatch.setattr(optimize_room, "_open", self.open)

    def find(self, name: str) -> Any:
        return SimpleNamespace(require=lambda: None, is_slow=name in self.slow)

    def open(self, engine: str, *_: object) -> Callable[[Tensor], Tensor]:
        if engine in self.fails_here:
            raise RuntimeError("not in this process")
        return lambda x: x.flatten(1)[:, :3]

    def ask(
        self,
        engines: dict[str, Way | Sequence[Way]],
        eager: float = 100.0,
        names: Sequence[str] = (),
        **options: Any,
    ) -> Engine:
        """Engines are named from simple to complex."""
        ways = {name: (way,) if isinstance(way, Way) else way for name, way in engines.items()}
        for module in (search, request):
            self.patch.setattr(module, "ENGINES", dict.fromkeys(names or ways, ""))

        class Pool:
            def __init__(pool, installed: Sequence[str], folder: Path) -> None:
                self.handles = {name: FakeHandle(name, ways[name], self.clock, folder) for name in installed}
                pool.attempts = list(self.handles.values())

            def __enter__(pool) -> Pool:
                return pool

            def __exit__(pool, *_: object) -> None:
                pass

        self.patch.setattr(search, "WorkerPool", Pool)
        self.net = FakeNet(self.clock, eager).eval()
        return convatlas.optimize(
            self.net, (1, 4, 4), engines=("eager", *ways), remember=False, threads=1, **options
        )


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def cycle(*values: float) -> Times:
    found: Iterator[float] = itertools.cycle(values)
    return lambda _: next(found)


def notes(engine: Engine) -> dict[str, str]:
    return {result.engine: result.note for result in engine.report.results}


class TestRace:
    @pytest.mark.parametrize(
        ("one", "seconds"),
        [
            pytest.param(cycle(0.25, 0.4, 0.4), 0.4, id="not-by-its-best-call"),
            pytest.param(cycle(0.3, 0.3, 0.3, 3.0), 0.3, id="not-by-its-mean"),
        ],
    )
    def test_the_median_decides(self, house: House, one: Times, seconds: float) -> None:
        found = house.ask({"one": Way(0.34, one), "other": Way(0.34, 0.36)})
        assert found.name == ("one" if seconds < 0.36 else "other")
        result = next(result for result in found.report.results if result.engine == "one")
        assert result.seconds == pytest.approx(seconds)

    @pytest.mark.parametrize(("factor", "is_raced"), [(1.49, True), (1.51, False)])
    def test_who_is_far_behind_at_first_look_is_not_raced(
        self, house: House, factor: float, is_raced: bool
    ) -> None:
        behind = Way(0.1 * factor, 0.05)
        found = house.ask({"one": Way(0.1), "behind": behind})
        assert (behind.rounds > 0, behind.closed) == (is_raced, 0 if is_raced else 1)
        assert found.name == ("behind" if is_raced else "one")
        if not is_raced:
            assert found.report.results[1].seconds == pytest.approx(0.1 * factor)
            assert not notes(found)["behind"]

    @pytest.mark.parametrize(("factor", "rounds"), [(1.29, 6), (1.31, 2)])
    def test_who_is_hopeless_in_the_race_has_two_rounds(
        self, house: House, factor: float, rounds: int
    ) -> None:
        slow = Way(0.1, 0.1 * factor)
        fast = Way(0.1)
        house.ask({"fast": fast, "close": Way(0.1, 0.101), "slow": slow})
        assert (fast.rounds, slow.rounds) == (6, rounds)

    @pytest.mark.parametrize(
        ("ratios", "rounds"),
        [
            pytest.param((1.0,), 6, id="equal"),
            pytest.param((0.991, 1.009), 6, id="an-interval-of-1.8-%"),
            pytest.param((0.985, 1.015), 17, id="an-interval-of-3-%-that-holds-1"),
            pytest.param((1.03, 1.08), 6, id="wide-but-surely-slower"),
            pytest.param((1.01, 1.06), 17, id="wide-and-perhaps-as-fast"),
        ],
    )
    def test_it_ends_when_the_ratio_of_the_first_two_is_known(
        self, house: House, ratios: tuple[float, ...], rounds: int
    ) -> None:
        one = Way(0.17)
        house.ask({"one": one, "other": Way(0.17, cycle(*(0.17 * ratio for ratio in ratios)))})
        # Two calls of 0.17 s and two pauses of 0.01 s are a round; the last one begins within 6 s.
        assert one.rounds == rounds

    def test_where_calls_are_long_there_are_three_rounds(self, house: House) -> None:
        one = Way(4.0)
        house.ask({"one": one, "other": Way(4.0, cycle(3.5, 4.5))})
        assert one.rounds == 3

    def test_where_calls_are_tiny_there_are_200_rounds(self, house: House) -> None:
        one = Way(1e-6)
        house.ask({"one": one, "other": Way(1e-6, cycle(*[0.9e-6] * 20, *[1.1e-6] * 20))})
        assert (one.rounds, one.calls) == (200, 4000)

    @pytest.mark.parametrize(("seconds", "calls"), [(0.0101, 2), (0.0149, 2), (0.04, 1)])
    def test_calls_of_a_round_take_30_ms(self, house: House, seconds: float, calls: int) -> None:
        one = Way(seconds)
        house.ask({"one": one, "other": Way(seconds)})
        assert one.calls == calls * one.rounds

    def test_who_stops_answering_is_dropped(self, house: House) -> None:
        found = house.ask({"one": Way(0.1, stops_after=2), "other": Way(0.11)})
        assert found.name == "other"
        assert notes(found)["one"] == "stopped answering while it was timed"

    def test_the_network_itself_takes_part(self, house: House) -> None:
        found = house.ask({"one": Way(0.1)}, eager=0.09)
        assert found.name == "eager"
        assert found.report.chosen.seconds == pytest.approx(0.09)


class TestTies:
    @pytest.mark.parametrize(
        ("ratio", "chosen"),
        [(1.0, "simple"), (1.019, "simple"), (1.021, "complex"), (0.9, "simple")],
    )
    def test_of_two_that_are_about_as_fast_the_simpler_is_taken(
        self, house: House, ratio: float, chosen: str
    ) -> None:
        found = house.ask({"simple": Way(0.1, 0.1 * ratio), "complex": Way(0.1)})
        assert found.name == chosen
        assert {result.engine for result in found.report.results} == {"simple", "complex", "eager"}

    def test_the_order_of_asking_does_not_matter(self, house: House) -> None:
        assert (
            house.ask({"complex": Way(0.1), "simple": Way(0.1)}, names=("simple", "complex")).name == "simple"
        )

    def test_the_network_itself_is_the_simplest(self, house: House) -> None:
        assert house.ask({"one": Way(0.1)}, eager=0.101).name == "eager"
        assert house.ask({"one": Way(0.1)}, eager=0.103).name == "one"

    def test_round_by_round_is_compared(self, house: House) -> None:
        # The machine gets slower and faster, for both.
        slowness = (1.0, 1.25, 1.1)
        simple = Way(0.1, cycle(*(0.1025 * factor for factor in slowness)))
        found = house.ask({"simple": simple, "complex": Way(0.1, cycle(*(0.1 * each for each in slowness)))})
        assert found.name == "complex"

    def test_full_precision_is_simpler_than_less(self, house: House) -> None:
        narrow = Way(0.1, config=BackendConfig("bf16"))
        found = house.ask({"one": [narrow, Way(0.1, 0.101)]}, precision="bf16")
        assert found.precision == "fp32"
        found = house.ask({"one": [dataclasses.replace(narrow), Way(0.1, 0.103)]}, precision="bf16")
        assert found.precision == "bf16"

    def test_the_whole_batch_is_simpler_than_a_stream_for_each_thread(self, house: House) -> None:
        streams = Way(0.1, config=BackendConfig(at_once=2))
        found = house.ask({"one": [streams, Way(0.1, 0.101)]})
        assert found.report.chosen.config == BackendConfig()


class TestLongCalls:
    @pytest.mark.parametrize(
        ("look", "behind", "checked"),
        [
            pytest.param(0.49, 0.6, (3, 3), id="not-long"),
            pytest.param(0.51, 0.6, (2, 2), id="two-settings"),
            pytest.param(0.51, 0.51 * 1.49, (2, 2), id="not-far-behind"),
            pytest.param(0.51, 0.51 * 1.51, (2, 1), id="far-behind-one-setting"),
        ],
    )
    def test_few_settings_are_looked_at(
        self, house: House, look: float, behind: float, checked: tuple[int, int]
    ) -> None:
        def settings(seconds: float) -> list[Way]:
            return [Way(seconds, config=BackendConfig(at_once=number)) for number in (0, 1, 2)]

        one, other = settings(look), settings(behind if look > 0.5 else look)
        house.ask({"one": one, "other": other})
        assert tuple(sum(way.checked for way in ways) for ways in (one, other)) == checked

    @pytest.mark.parametrize(("look", "raced"), [(0.49, 4), (0.51, 2)])
    def test_one_setting_of_each_engine_is_raced(self, house: House, look: float, raced: int) -> None:
        def settings() -> list[Way]:
            return [Way(look), Way(look * 1.01, config=BackendConfig(at_once=1))]

        one, other = settings(), settings()
        house.ask({"one": one, "other": other})
        assert sum(way.rounds > 0 for way in (*one, *other)) == raced


class TestAgreement:
    @pytest.mark.parametrize(("error", "is_kept"), [(0.99e-4, True), (1.01e-4, False)])
    def test_full_precision(self, house: House, error: float, is_kept: bool) -> None:
        found = house.ask({"one": Way(0.1, error=error)}, tolerance=1e-4)
        assert (found.name == "one") == is_kept
        if not is_kept:
            assert "differ by 1.0e-04 of the largest; 1.0e-04 is allowed" in notes(found)["one"]

    @pytest.mark.parametrize(("error", "is_kept"), [(0.049, True), (0.051, False)])
    def test_bf16(self, house: House, error: float, is_kept: bool) -> None:
        way = Way(0.1, config=BackendConfig("bf16"), error=error)
        assert (house.ask({"one": way}, precision="bf16").name == "one") == is_kept

    @pytest.mark.parametrize(
        ("error", "same", "is_kept"), [(0.49, 0.91, True), (0.51, 1.0, False), (0.1, 0.89, False)]
    )
    def test_int8(self, house: House, error: float, same: float, is_kept: bool) -> None:
        way = Way(0.1, config=BackendConfig("int8"), error=error, same_top=same)
        found = house.ask({"one": way}, precision="int8", calibration=torch.randn(8, 1, 4, 4))
        assert (found.name == "one") == is_kept

    def test_full_precision_is_held_to_its_own_bound_where_less_is_allowed(self, house: House) -> None:
        found = house.ask({"one": Way(0.1, error=1e-3)}, precision="bf16")
        assert found.name == "eager"


class TestTrouble:
    @pytest.mark.parametrize("failing", [0, 1, 2, 3, 4])
    def test_those_that_fail_in_this_process_make_way_for_the_next(self, house: House, failing: int) -> None:
        names = ("a", "b", "c", "d")
        house.fails_here = set(names[:failing])
        found = house.ask({name: Way(0.1 * 1.1**number) for number, name in enumerate(names)})
        assert found.name == (*names, "eager")[failing]
        failed = [name for name, note in notes(found).items() if "failed here" in note]
        assert failed == list(names[:failing])

    def test_deadlines(self, house: House) -> None:
        house.slow = {"slow"}
        house.ask({"quick": Way(0.1), "slow": Way(0.1)}, eager=0.2, time_limit=60.0)
        looked = house.handles["quick"].deadlines["build"]
        assert looked == pytest.approx(60.0 - 0.2)  # One more call of the network itself.
        # A third is left for what follows, and so is the time of twelve calls of the network itself.
        assert looked - house.handles["slow"].deadlines["build"] == pytest.approx(20.0 + 12 * 0.2)
        assert house.handles["quick"].deadlines["check"] == pytest.approx(62.0)
        assert house.handles["quick"].deadlines["time"] == pytest.approx(120.0)


class TestFirstLook:
    @pytest.mark.parametrize(
        ("times", "expected", "calls"),
        [
            pytest.param([0.049, 0.04, 0.03, 0.01, 0.02, 0.03], 0.01, 6, id="short"),
            pytest.param([0.051, 0.03], 0.03, 2, id="not-short"),
            pytest.param([0.49, 0.3], 0.3, 2, id="not-long"),
            pytest.param([0.51], 0.51, 1, id="long"),
        ],
    )
    def test_the_best_of_a_few_calls(
        self, house: House, times: list[float], expected: float, calls: int
    ) -> None:
        left = list(times)

        def call(x: Tensor) -> Tensor:
            house.clock.now += left.pop(0)
            return x

        assert estimate_latency(call, torch.zeros(1)) == pytest.approx(expected)
        assert len(times) - len(left) == calls

    def test_a_first_call_that_is_known_is_not_made_again(self, house: House) -> None:
        assert estimate_latency(lambda x: x, torch.zeros(1), 0.7) == 0.7
