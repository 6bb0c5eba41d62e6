"""The engine that brings other libraries' weights onto ours."""

from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.weights import WeightsError, all_tables, find_table, load_foreign, load_own
from convatlas.weights import keymap as keymap_module

TABLE = r"""
[[table]]
source = "there"
networks = ["small*"]
drop = ['extra\..*']
[table.modules]
'c(\d)' = 'body.\1'
'bn' = 'norm'
'classifier' = 'head.fc'

[[table]]
source = "there"
networks = ["small_odd"]
theirs = { small_odd = "odd" }
[table.modules]
'odd(\d)' = 'body.\1'
'bn' = 'norm'
'classifier' = 'head.fc'

[[table]]
source = "there"
networks = ["small_twice"]
drop = ['extra\..*']
modules = { 'c(\d)' = 'body.\1', 'b0?n' = 'norm', 'classifier' = 'head.fc' }

[[table]]
source = "elsewhere"
networks = ["other"]
modules = {}
"""


class Small(nn.Module):
    def __init__(self, name: str = "small", aux: bool = False) -> None:
        super().__init__()
        self.name = name
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Linear(4 * 2 * 2, 5, bias=False))
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.ModuleDict({"fc": nn.Linear(5, 2)})
        self.aux_heads = nn.ModuleList([nn.Linear(4, 2)] if aux else [])


def theirs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "c0.weight": torch.randn(4, 3, generator=generator),
        "c1.weight": torch.randn(5, 4, 2, 2, generator=generator),
        "bn.weight": torch.rand(4, generator=generator),
        "bn.bias": torch.rand(4, generator=generator),
        "bn.running_mean": torch.rand(4, generator=generator),
        "bn.running_var": torch.rand(4, generator=generator),
        "bn.num_batches_tracked": torch.tensor(9),
        "classifier.weight": torch.randn(2, 5, 1, 1, generator=generator),
        "classifier.bias": torch.randn(2, generator=generator),
        "extra.weight": torch.ones(1),
    }


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.toml").write_text(TABLE)
    found = tuple(keymap_module.read_tables(tmp_path / "small.toml"))
    monkeypatch.setattr(keymap_module, "all_tables", lambda: found)


def snapshot(net: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def test_keys_are_mapped_and_equivalent_shapes_reshaped() -> None:
    net, given = Small(), theirs()
    load_foreign(net, given, source="there")
    assert torch.equal(net.body[0].weight, given["c0.weight"][:, :, None, None])
    assert torch.equal(net.body[1].weight, given["c1.weight"].flatten(1))
    assert torch.equal(net.head["fc"].weight, given["classifier.weight"][:, :, 0, 0])
    assert torch.equal(net.norm.running_var, given["bn.running_var"])
    assert net.norm.num_batches_tracked == 9


def test_batch_counter_is_optional_on_both_sides() -> None:
    net, given = Small(), theirs()
    del given["bn.num_batches_tracked"]
    load_foreign(net, given, source="there")
    assert torch.equal(net.norm.running_var, given["bn.running_var"])
    net, given = Small(), theirs() | {"c0.num_batches_tracked": torch.tensor(1)}
    load_foreign(net, given, source="there")
    assert torch.equal(net.norm.running_var, given["bn.running_var"])


def test_one_error_lists_all_and_changes_nothing() -> None:
    net, given = Small(), theirs()
    before = snapshot(net)
    del given["bn.bias"], given["c0.weight"]
    given |= {
        "strange.weight": torch.ones(3),
        "c7.weight": torch.ones(6),
        "classifier.bias": torch.ones(3),
        "bn.weight": torch.ones(4, dtype=torch.int64),
        "c1.weight": torch.randn(4, 5, 2, 2),
    }
    with pytest.raises(WeightsError) as caught:
        load_foreign(net, given, source="there")
    assert str(caught.value).splitlines() == [
        "small: weights from there do not fit: 2 missing, 2 unexpected, 3 of another shape; "
        "nothing was loaded",
        "  missing (the network has them, the weights do not):",
        "    body.0.weight (4, 3, 1, 1)",
        "    norm.bias (4,)",
        "  unexpected (the weights have them, the network does not):",
        "    strange.weight (3,), which small.toml does not map",
        "    c7.weight -> body.7.weight (6,)",
        "  of another shape or type:",
        "    c1.weight -> body.1.weight: given (4, 5, 2, 2), the network has (5, 16)",
        "    bn.weight -> norm.weight: given (4,) torch.int64, the network has (4,)",
        "    classifier.bias -> head.fc.bias: given (3,), the network has (2,)",
    ]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_two_keys_for_one_of_ours_do_not_fit() -> None:
    given = theirs() | {"b0n.weight": torch.ones(4)}
    with pytest.raises(
        WeightsError, match=r"b0n\.weight, which small\.toml maps to norm\.weight as it does bn\.wei"
    ):
        load_foreign(Small("small_twice"), given, source="there")


def test_the_most_specific_table_wins() -> None:
    given = {key.replace("c0", "odd0").replace("c1", "odd1"): value for key, value in theirs().items()}
    del given["extra.weight"]
    load_foreign(Small("small_odd"), given, source="there")
    assert find_table("small_odd", "there").their_name("small_odd") == "odd"
    assert find_table("small_even", "there").their_name("small_even") == "small_even"


def test_side_classifiers_that_the_weights_lack_keep_their_values() -> None:
    net = Small(aux=True)
    before = net.aux_heads[0].weight.clone()
    load_foreign(net, theirs(), source="there")
    assert torch.equal(net.aux_heads[0].weight, before)


@pytest.mark.parametrize(
    ("net", "source", "message"),
    [
        (Small(), "nowhere", r"unknown `source`='nowhere'; there are key tables for elsewhere, there"),
        (
            Small(),
            "elsewhere",
            r"no key table brings weights from elsewhere onto 'small'; tables for 'small' exist from: there; "
            r"nearest that elsewhere has: none; all: other",
        ),
        (Small("big"), "there", r"onto 'big'; tables for 'big' exist from: none"),
        (nn.Linear(1, 1), "there", r"the Linear has no `name`"),
    ],
    ids=["source", "network of source", "network", "no name"],
)
def test_what_cannot_be_mapped(net: nn.Module, source: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_foreign(net, theirs(), source=source)


def test_a_network_without_memory_is_refused() -> None:
    with pytest.raises(WeightsError, match="on the meta device, where there is nothing to copy to"):
        load_foreign(Small().to("meta"), theirs(), source="there")


def test_own_weights() -> None:
    net, other = Small(), Small()
    load_own(other, net.state_dict())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    flat = net.state_dict() | {"body.0.weight": torch.ones(4, 3)}
    with pytest.raises(
        WeightsError, match=r"body\.0\.weight: given \(4, 3\), the network has \(4, 3, 1, 1\)"
    ):
        load_own(other, flat)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[table]]\nsource = 'x'\nnetworks = []\nmodule = {}", "bad.toml: TypeError"),
        ("[[table]]\nsource = 'x'\nnetworks = []\nmodules = { '(' = 'a' }", "bad.toml: error"),
        ("[[table", "bad.toml: TOMLDecodeError"),
    ],
    ids=["unknown entry", "pattern", "syntax"],
)
def test_a_bad_table_names_its_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(WeightsError, match=message):
        keymap_module.read_tables(tmp_path / "bad.toml")


def test_the_shipped_tables_are_read() -> None:
    all_tables.cache_clear()
    assert {table.source for table in all_tables()} <= {"torchvision", "timm", "efficientnet_pytorch"}
