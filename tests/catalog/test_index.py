"""The table of sizes, and what is chosen from it."""

import pytest

from convatlas import list_models
from convatlas.catalog.index import (
    all_entries,
    find_entries,
    find_entry,
    parse_amount,
    parse_years,
    short_amount,
)
from convatlas.models.sizes import compute_entry


def test_the_index_holds_every_network() -> None:
    assert [entry.name for entry in all_entries()] == list_models(), "run scripts/make_index.py"


@pytest.mark.parametrize("name", list_models())
def test_the_index_is_in_step_with_the_networks(name: str) -> None:
    assert find_entry(name) == compute_entry(name), "run scripts/make_index.py"


def names(**conditions: object) -> set[str]:
    return {entry.name for entry in find_entries(**conditions)}


def test_conditions() -> None:
    assert names(pattern="lenet*") == {"lenet5", "lenet5_1998"}
    assert "resnet50_v1_5" in names(pattern="resnet50")  # by its alias
    assert {"resnet18", "densenet121"} & names(tag="residual") == {"resnet18"}
    assert {entry.year for entry in find_entries(years=(2012, 2013))} == {2012, 2013}
    small = find_entries(max_params=5e6, max_macs=1e9)
    assert all(entry.params <= 5e6 and entry.macs <= 1e9 for entry in small)
    assert {"lenet5", "nin_cifar", "vgg16", "nin_imagenet"} & {e.name for e in small} == {
        "lenet5",
        "nin_cifar",
    }


@pytest.mark.parametrize("sort", ["depth", "params", "macs", "activations", "year"])
def test_sorting_by_numbers(sort: str) -> None:
    values = [getattr(entry, sort) for entry in find_entries(sort=sort)]
    assert values == sorted(values)


def test_sorting_by_name_is_natural() -> None:
    order = [entry.name for entry in find_entries("resnet*_cifar", sort="name")]
    assert order.index("resnet20_cifar") < order.index("resnet110_cifar") < order.index("resnet1202_cifar")


def test_unknown_conditions() -> None:
    with pytest.raises(ValueError, match="unknown tag 'residul'; nearest: residual"):
        find_entries(tag="residul")
    with pytest.raises(
        ValueError, match="`sort`='size'; allowed are year, name, depth, params, macs, activations"
    ):
        find_entries(sort="size")


@pytest.mark.parametrize(
    ("text", "years"),
    [("2015", (2015, 2015)), ("2015..2017", (2015, 2017)), ("..2014", (0, 2014)), ("2017..", (2017, 9999))],
)
def test_years(text: str, years: tuple[int, int]) -> None:
    assert parse_years(text) == years


@pytest.mark.parametrize("text", ["15", "2015-2017", "", "20152017", "x"])
def test_bad_years(text: str) -> None:
    with pytest.raises(ValueError, match="expected a year or a range"):
        parse_years(text)


@pytest.mark.parametrize(
    ("text", "value"), [("5M", 5e6), ("1.5G", 1.5e9), ("300k", 3e5), ("7", 7.0), (".5B", 5e8)]
)
def test_amounts(text: str, value: float) -> None:
    assert parse_amount("max-params", text) == value


@pytest.mark.parametrize("text", ["", "M", "5 M", "-3", "5T"])
def test_bad_amounts(text: str) -> None:
    with pytest.raises(ValueError, match=r"`max-params`=.*; expected a number, for example 5M"):
        parse_amount("max-params", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (61_706, "61.7k"),
        (25_557_032, "25.6M"),
        (4_089_184_256, "4.09G"),
        (999_999, "1M"),
        (12, "12"),
        (138_357_544, "138M"),
    ],
)
def test_short_amounts(value: float, text: str) -> None:
    assert short_amount(value) == text
