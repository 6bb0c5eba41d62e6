from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest

from convatlas.config import build, change, check_types, parse_settings, to_toml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    radius: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongBox:
    sides: tuple[float, ...] = (1.0, 2.0)
    hollow: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cake:
    count: int
    colour: Literal["red", "blue"] = "red"
    price: float | None = None
    shape: Round | LongBox | Nothing = Round()
    top: Round | None = None
    pairs: tuple[tuple[float, int], ...] = ()
    name: str = ""


CAKE = Cake(count=2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"count": 3, "price": 2}, Cake(count=3, price=2), id="plain"),
        pytest.param({"price": "none"}, CAKE, id="none"),
        pytest.param({"colour": "blue"}, Cake(count=2, colour="blue"), id="choice"),
        pytest.param({"shape.radius": 2.5}, Cake(count=2, shape=Round(radius=2.5)), id="into-a-part"),
        pytest.param({"shape": "long_box"}, Cake(count=2, shape=LongBox()), id="kind"),
        pytest.param({"shape": {"kind": "round"}}, CAKE, id="mapping"),
        pytest.param(
            {"shape.sides": [3.0], "shape": "long_box"}, Cake(count=2, shape=LongBox(sides=(3.0,))), id="both"
        ),
        pytest.param(
            {"shape.kind": "long_box", "shape.hollow": True},
            Cake(count=2, shape=LongBox(hollow=True)),
            id="kind-with-dots",
        ),
        pytest.param(
            {"shape.kind": "round", "shape.radius": 4.0},
            Cake(count=2, shape=Round(radius=4.0)),
            id="the-kind-it-has",
        ),
        pytest.param({"top": {}}, Cake(count=2, top=Round()), id="a-part-with-its-defaults"),
        pytest.param({"top.radius": 0.5}, Cake(count=2, top=Round(radius=0.5)), id="into-a-missing-part"),
        pytest.param({"top": Round(radius=9.0)}, Cake(count=2, top=Round(radius=9.0)), id="an-instance"),
        pytest.param({"pairs": [[0.0, 3], [0.5, 4]]}, Cake(count=2, pairs=((0.0, 3), (0.5, 4))), id="pairs"),
    ],
)
def test_changes(settings: dict[str, Any], expected: Cake) -> None:
    assert change(CAKE, settings) == expected


def test_a_part_keeps_what_is_not_named() -> None:
    cake = Cake(count=2, shape=LongBox(sides=(5.0,)))
    assert change(cake, {"shape.hollow": True}).shape == LongBox(sides=(5.0,), hollow=True)
    assert change(cake, {"shape": {"kind": "long_box", "hollow": True}}).shape == LongBox(hollow=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"coun": 3}, r"a cake has no field `coun` \(received 3\); nearest: count", id="field"),
        pytest.param({"shape.radios": 3}, r"`shape` has no field `radios` .*; nearest: radius", id="nested"),
        pytest.param({"shape.sides": [1.0]}, r"`shape` has no field `sides`", id="another-kinds-field"),
        pytest.param({"shape": "box"}, r"`shape.kind`='box'; allowed are 'round', 'long_box'", id="kind"),
        pytest.param({"shape": {"radius": 1.0}}, r"`shape.kind`=''; allowed are 'round'", id="no-kind"),
        pytest.param(
            {"shape": {"kind": "nothing", "x": 1}}, r"`shape` has no field `x` .*; it has none", id="empty"
        ),
        pytest.param({"top": 3}, r"`top`=3; expected \{radius = ...\} or none", id="part"),
        pytest.param({"top": "round"}, r"`top`='round'; expected \{radius = ...\} or none", id="text"),
        pytest.param({"shape": 3}, r"`shape`=3; expected one of 'round', 'long_box', 'nothing'", id="parts"),
        pytest.param({"count": 2.5}, r"`count`=2.5; expected a whole number", id="whole"),
        pytest.param({"count": True}, r"`count`=True; expected a whole number", id="truth-is-no-number"),
        pytest.param({"count": "none"}, r"`count`='none'; expected a whole number", id="never-none"),
        pytest.param({"price": "dear"}, r"`price`='dear'; expected a number or none", id="number"),
        pytest.param({"shape": LongBox(), "shape.hollow": 1}, r"`shape.hollow`=1; expected true", id="truth"),
        pytest.param({"colour": "green"}, r"`colour`='green'; expected one of 'red', 'blue'", id="choice"),
        pytest.param({"pairs": [[0.0]]}, r"`pairs`=\(\(0.0,\),\); expected a list of", id="pairs"),
        pytest.param({"count.x": 3}, r"`count.x`: `count` is a whole number, which has no fields", id="dots"),
        pytest.param({"name": 3}, r"`name`=3; expected text", id="no-text"),
    ],
)
def test_what_a_change_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(CAKE, settings)


def test_building_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match="`count` is missing"):
        build(Cake, {"colour": "red"})


def test_types_are_checked_from_python_too() -> None:
    with pytest.raises(ValueError, match="`count`='2'; expected a whole number"):
        check_types(Cake(count="2"))  # pyright: ignore[reportArgumentType]
    check_types(CAKE)


def test_toml_by_hand() -> None:
    cake = Cake(count=1, price=1e-5, shape=LongBox(), top=Round(), pairs=((0.0, 3),), name='a "b"')
    assert to_toml(cake) == (
        'count = 1\ncolour = "red"\nprice = 1e-05\npairs = [[0.0, 3]]\nname = "a \\"b\\""\n'
        '\n[shape]\nkind = "long_box"\nsides = [1.0, 2.0]\nhollow = false\n\n[top]\nradius = 1.0\n'
    )


def test_items_of_the_command_line() -> None:
    items = ["a=3", "b = 0.1", "c=rbf", "d={degrees = 5.0}", "e.f=true", "g=[0.5, 0.75]", "h=a=b"]
    assert parse_settings(items) == {
        "a": 3, "b": 0.1, "c": "rbf", "d": {"degrees": 5.0}, "e.f": True, "g": [0.5, 0.75], "h": "a=b",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"`--set epochs`; expected FIELD=VALUE"):
        parse_settings(["epochs"])
