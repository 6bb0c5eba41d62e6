"""`ModelSpec`: files that hold weights rebuild the very network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import convatlas
from convatlas.data.transforms import card_transform
from convatlas.models.network import Network
from convatlas.predict.load import load_network
from convatlas.runs.model_spec import ModelSpec, overrides_of
from convatlas.weights.files import write_safetensors

OVERRIDES: list[tuple[str, dict[str, Any]]] = [
    ("resnet20_cifar", {"global_pool": "max"}),
    ("resnet20_cifar", {"shortcut": "B"}),
    ("resnet20_cifar", {"drop_rate": 0.25}),
    ("mobilenet_v2_100", {"width_mult": 0.35}),
    ("densenet40_12_cifar", {"growth": 6}),
    ("lenet5", {}),
]


def spec_of(name: str, overrides: dict[str, Any]) -> ModelSpec:
    card = convatlas.find_card(name)
    return ModelSpec(
        name=name, transform=card_transform(card), class_names=("a", "b", "c"), overrides=overrides
    )


@pytest.mark.parametrize(("name", "overrides"), OVERRIDES)
def test_a_file_rebuilds_the_very_network(name: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = spec_of(name, overrides).build().eval()
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, net.state_dict(), spec_of(name, overrides).header())
    loaded = load_network(path)
    assert loaded.config == net.config and loaded.class_names == ("a", "b", "c")
    x = torch.randn(2, *loaded.transform.input_size)
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))


@pytest.mark.parametrize(("name", "overrides"), OVERRIDES)
def test_overrides_are_found_on_a_network(name: str, overrides: dict[str, Any]) -> None:
    with torch.device("meta"):
        net = convatlas.create_model(name, num_classes=7, **overrides)
    assert isinstance(net, Network) and overrides_of(net) == overrides


def test_a_header_of_before_has_no_overrides() -> None:
    header = spec_of("lenet5", {}).header()
    del header["model"]
    assert ModelSpec.from_header(header).overrides == {}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("class_names", '["a", 1, "c"]', "expected a list of names"),
        ("class_names", '["a"]', "names 1 classes for 3 logits"),
        ("model", "[]", "expected fields with their values"),
        ("network", "lenet6", "lenet5"),
    ],
)
def test_a_damaged_header(key: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSpec.from_header(spec_of("lenet5", {}).header() | {key: text})


def test_an_override_that_no_file_can_hold() -> None:
    with pytest.raises(ValueError, match=r"`model`: shortcut=<object .* cannot be written"):
        spec_of("resnet20_cifar", {"shortcut": object()})


def test_the_header_is_text() -> None:
    header = spec_of("resnet20_cifar", {"shortcut": "B"}).header()
    assert json.loads(header["model"]) == {"shortcut": "B"}
    assert all(isinstance(value, str) for value in header.values())
