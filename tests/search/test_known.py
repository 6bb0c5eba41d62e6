"""Published networks as points of the spaces, against their papers and other libraries."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from convatlas import create_model, size
from convatlas.search import KNOWN, parse
from convatlas.weights import load_foreign
from peers import randomise

EXACT = {
    "nasnet_a_mobile": "both",
    "nasnet_a_large": "both",
    "mobilenet_v2": "both",
    "mnasnet_b1": "both",
    "efficientnet_b0": "both",
    "darts_v2_cifar": "params",
    "pnasnet5_large": "params",
    "mnasnet_a1": "params",
}


@pytest.mark.parametrize("name", KNOWN)
def test_sizes_are_those_published(name: str) -> None:
    known = KNOWN[name]
    with torch.device("meta"):
        net = known.build().eval()
    sheet = size(net, (3, known.input_size, known.input_size))
    close = 0.20 if name == "enas_micro" else 0.08 if known.difference else 0.02
    assert (
        (sheet.params == known.params)
        if name in EXACT
        else sheet.params == pytest.approx(known.params, rel=close)
    )
    if known.macs is not None:
        exact = EXACT.get(name) == "both"
        assert (sheet.macs == known.macs) if exact else sheet.macs == pytest.approx(known.macs, rel=close)


@pytest.mark.parametrize(("name", "theirs"), [("mnasnet_b1", "mnasnet_100"), ("mnasnet_a1", "semnasnet_100")])
def test_parameters_of_mnasnet_are_those_of_timm(name: str, theirs: str) -> None:
    with torch.device("meta"):
        ours, peer = KNOWN[name].build(), timm.create_model(theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize("name", ["mobilenet_v2", "mnasnet_b1", "mnasnet_a1", "efficientnet_b0"])
def test_mobile_networks_are_points_of_their_space(name: str) -> None:
    assert parse("mobile", KNOWN[name].genotype).text == KNOWN[name].genotype


def check_equal(peer: nn.Module, **options: Any) -> None:
    torch.manual_seed(0)
    randomise(peer)
    ours = create_model("cell_imagenet", **options).eval()
    load_foreign(ours, peer.state_dict(), "timm")
    x = torch.randn(1, 3, 75, 75)
    with torch.no_grad():
        expected = peer(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_weights_of_timm_nasnet_give_equal_logits() -> None:
    # timm's constructor of nasnetalarge, with F = 8 in place of 168: the keys are the same.
    peer = timm.create_model("nasnetalarge", stem_size=12, num_features=24 * 8, channel_multiplier=2)
    genotype = KNOWN["nasnet_a_large"].genotype
    check_equal(peer, genotype=genotype, chans=8, stem_chans=12, counts_padding=True)


def test_weights_of_timm_pnasnet_give_equal_logits() -> None:
    check_equal(timm.create_model("pnasnet5large"), genotype=KNOWN["pnasnet5_large"].genotype)
