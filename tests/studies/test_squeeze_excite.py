"""What gates cost, by hand and in the paper; what is explained by classes, on made-up gates."""

import numpy as np
import pytest
import torch
from torch import nn

from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.resnet_cifar import ResNetCifarConfig
from convatlas.studies.modules.gate_cost import RESNET50, TABLE_2, cost_facts, count, gate_weights
from convatlas.studies.modules.squeeze_excite import GatedConfig, explained, make_net, watch_gates
from convatlas.studies.verdict import Verdict


def test_weights_of_the_gates_by_hand() -> None:
    # 2/16 of 3 * 256^2 + 4 * 512^2 + 6 * 1024^2 + 3 * 2048^2.
    assert gate_weights(RESNET50, 16) == (196_608 + 1_048_576 + 6_291_456 + 12_582_912) // 8 == 2_514_944


def test_all_that_the_paper_says_of_the_cost() -> None:
    facts = cost_facts()
    assert {fact.name: fact.verdict for fact in facts} == {fact.name: Verdict.HOLDS for fact in facts}
    assert len(facts) == 14


def test_biases_come_on_top_of_the_formula() -> None:
    cost = count(TABLE_2[0])
    biases = 3 * (256 + 16) + 4 * (512 + 32) + 6 * (1024 + 64) + 3 * (2048 + 128)
    assert cost.params[1] - cost.params[0] == 2_514_944 + biases
    assert cost.macs[1] - cost.macs[0] == 2_514_944


def test_the_small_pair_differs_by_its_gates() -> None:
    nets = [
        make_net(config)
        for config in (
            ResNetCifarConfig(blocks_per_stage=1),
            GatedConfig(blocks_per_stage=1, reduction=4),
        )
    ]
    params = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert params[1] - params[0] == sum(2 * c * c // 4 + c + c // 4 for c in (16, 32, 64))
    assert nets[1](torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_a_gate_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="`reduction`=32; expected at most 16"):
        GatedConfig(blocks_per_stage=1, reduction=32)


def test_watching_the_gates() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(SqueezeExcite(4, 2), SqueezeExcite(4, 2)), torch.randn(6, 4, 3, 3)
    first, second = watch_gates(net, lambda net: [net(part) for part in x.split(4)])
    assert first.shape == second.shape == (6, 4)
    assert np.allclose(first, (net[0](x) / x)[:, :, 0, 0].detach().numpy(), atol=1e-5)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ([[0.0], [0.0], [1.0], [1.0]], 1.0),
        ([[0.0], [1.0], [0.0], [1.0]], 0.0),
        ([[0.5], [0.5], [0.5], [0.5]], 0.0),
        ([[0.0], [2.0], [2.0], [4.0]], 0.5),  # 4 of 8: means 1 and 3 around 2
    ],
    ids=["all", "nothing", "constant", "half"],
)
def test_what_the_class_explains(gate: list[list[float]], expected: float) -> None:
    assert explained(np.asarray(gate), np.asarray([0, 0, 1, 1]), 2) == pytest.approx(expected)
