"""Pre- against post-activation: parameters and first weights."""

import pytest
import torch

from convatlas.studies.residual.identity import count_parameters, make_net
from convatlas.studies.verdict import Verdict

DEPTHS = (20, 56, 110)


@pytest.mark.parametrize(("depth", "params"), [(20, 269_722), (110, 1_727_962)])
def test_both_units_have_as_many_parameters(depth: int, params: int) -> None:
    # By hand from Table 6 of ResNet's paper (0.27M and 1.7M), with option A.
    fact = count_parameters(depth)
    assert (fact.value, fact.claimed) == (params, params)
    assert fact.verdict is Verdict.HOLDS


def test_all_convolutions_begin_alike() -> None:
    torch.manual_seed(0)
    for unit in ("post", "pre"):
        net = make_net(unit, 20, 3, 10)
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 4000:
                fan_in = layer.weight[0].numel()
                assert float(layer.weight.detach().std()) == pytest.approx((2.0 / fan_in) ** 0.5, rel=0.05)
