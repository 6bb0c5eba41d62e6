import pytest
import torch

from convatlas.blocks.drop import DropPath, linear_drop_rates


def test_samples_are_dropped_whole_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 2, 3, 3))
    per_sample = out.flatten(1)
    assert per_sample.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (per_sample == per_sample[:, :1]).all()
    assert (per_sample[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False)], ids=["no-rate", "evaluation"])
def test_identity(rate: float, training: bool) -> None:
    x = torch.randn(3, 2, 4, 4)
    assert DropPath(rate).train(training)(x) is x


def test_fx_traces_it_in_training() -> None:
    traced = torch.fx.symbolic_trace(DropPath(0.5).train())
    assert traced(torch.ones(64, 1, 2, 2)).unique().tolist() == [0.0, 2.0]


def test_rates_rise_linearly() -> None:
    assert linear_drop_rates(0.2, 5) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert linear_drop_rates(0.2, 1) == [0.0]
