"""Options A, B and C: parameters by hand, the verdict on made-up errors, and a tiny run on digits."""

import pytest
from torch import nn

from convatlas.models.registry import create_model
from convatlas.studies.residual.shortcuts import count_facts, projected
from convatlas.studies.run import run_study
from convatlas.studies.verdict import Verdict


def test_parameters_of_the_options() -> None:
    facts = count_facts()
    assert [fact.verdict for fact in facts] == [Verdict.HOLDS] * 3
    # By hand: 64 x 128 + 128 x 256 + 256 x 512 weights, and 2 x (128 + 256 + 512) of the norms.
    assert facts[0].claimed == 172_032 + 1_792
    # 3 x 64^2 + 3 x 128^2 + 5 x 256^2 + 2 x 512^2, and 2 x (192 + 384 + 1280 + 1024).
    assert facts[1].claimed == 12_288 + 49_152 + 327_680 + 524_288 + 5_760
    assert facts[2].value == 65_536 / 69_632


@pytest.mark.parametrize(("kind", "params"), [("A", 269_722), ("B", 272_474)])
def test_parameters_of_resnet20(kind: str, params: int) -> None:
    # Option A is the paper's 0.27M; B is what ports of it have that project.
    net: nn.Module = create_model("resnet20_cifar", shortcut=kind)
    assert sum(parameter.numel() for parameter in net.parameters()) == params


def test_projected() -> None:
    assert projected([(2, 3), (4, 5)]) == (6 + 6) + (20 + 10)


def test_a_depth_that_no_network_has() -> None:
    with pytest.raises(ValueError, match=r"`depth`=21; expected 6n \+ 2 layers, near 20"):
        run_study("shortcuts", out="unused", depth=21)
