"""Names, overrides and cards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import convatlas
from convatlas import create_model, find_card, is_model, list_models
from convatlas.catalog import cards
from convatlas.catalog.describe import describe, record


def test_aliases_are_declared_and_lead_to_their_network() -> None:
    assert is_model("resnet50")
    assert find_card("resnet50").name == "resnet50_v1_5"
    assert create_model("resnet50", num_classes=2).name == "resnet50_v1_5"
    assert "resnet50" not in list_models()
    assert not is_model("resnet51")


def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown network 'resnet51'; nearest: resnet5.*; `convatlas list` shows all"
    ):
        create_model("resnet51")


def test_out_indices_need_features_only() -> None:
    with pytest.raises(ValueError, match=r"`out_indices`=\[1\] has a meaning with `features_only=True` only"):
        create_model("lenet5", out_indices=[1])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param(
            {"num_classes": -1}, "`num_classes`=-1; expected a whole number of at least 0", id="classes"
        ),
        pytest.param({"num_classes": 2.5}, "`num_classes`=2.5; expected a whole number", id="fraction"),
        pytest.param({"in_chans": 0}, "`in_chans`=0; expected a whole number of at least 1", id="channels"),
        pytest.param(
            {"drop_rate": 1.0}, "`drop_rate`=1.0; expected a rate of at least 0 and below 1", id="rate"
        ),
        pytest.param({"drop_rate": "x"}, "`drop_rate`='x'; expected a rate", id="text"),
    ],
)
def test_values_out_of_range(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("lenet5", **option)


@pytest.mark.parametrize(
    ("pool", "message"),
    [("mean", 'allowed are "avg", "max" and ""'), ("", "keeps the feature map and needs `num_classes`=0")],
)
def test_global_pool(pool: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("resnet20_cifar", global_pool=pool)


def test_maps_without_pooling() -> None:
    import torch

    net = create_model("resnet20_cifar", num_classes=0, global_pool="").eval()
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_describe_shows_published_against_computed() -> None:
    text = describe("resnet50")
    assert text.startswith("resnet50_v1_5 (also resnet50): ")
    assert "25,557,032 computed; equal to the count by: torchvision" in text
    assert "3.8x10^9, Table 1; computed is +7.6 %" in text
    assert "departs from the paper:" in text
    assert max(map(len, text.splitlines())) <= 100


def test_record_is_for_machines() -> None:
    entry = record("lenet5")
    assert entry["computed"]["params"] == 61_706
    assert entry["paper"]["year"] == 1998


def card_file(folder: Path, text: str) -> None:
    (folder / "a.toml").write_text(text)


BASE = """
module = "lenet"
[paper]
title = "T"
authors = ["A"]
year = 2000
venue = "V"
identifier = "arXiv:1"
new = "N."
[networks.x]
summary = "s"
tags = ["t"]
input_size = [1, 32, 32]
num_classes = 10
mean = [0.0]
std = [1.0]
"""


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(cards, "PAPERS", tmp_path)
    cards.all_cards.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    cards.all_cards.cache_clear()


def test_a_card_is_read(papers: Path) -> None:
    card_file(papers, BASE)
    assert cards.all_cards()["x"].paper == cards.Paper("T", ("A",), 2000, "V", "arXiv:1", "N.", "a")


def test_an_unknown_key_in_a_card(papers: Path) -> None:
    card_file(papers, BASE + "colour = 3\n")
    with pytest.raises(ValueError, match=r"a\.toml: .*colour"):
        cards.all_cards()


def test_two_cards_of_one_name(papers: Path) -> None:
    card_file(papers, BASE)
    (papers / "b.toml").write_text(BASE)
    with pytest.raises(ValueError, match=r"b\.toml: `x` has a card in another file already"):
        cards.all_cards()


def test_lazy_names_are_listed() -> None:
    assert set(convatlas.__all__) <= set(dir(convatlas))
