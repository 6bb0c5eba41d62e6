import pytest
import torch
from torch import nn

from convatlas.training.ema import Ema


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@torch.no_grad()
def fill(net: nn.Module, value: float) -> None:
    for tensor in net.state_dict().values():
        tensor.fill_(value)


def test_the_average_by_hand() -> None:
    net = make_net()
    fill(net, 0.0)
    ema = Ema(net, 0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 4.0, 2.0]):
        fill(net, value)
        ema.update(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1.0 - kept) * value
    state = ema.state()
    assert state["0.weight"].flatten().tolist() == pytest.approx([expected] * 18)
    assert state["1.running_var"].tolist() == pytest.approx([expected] * 2)
    assert state["1.num_batches_tracked"].item() == 2  # a count is copied


def test_an_evaluation_borrows_the_average() -> None:
    net = make_net().eval()
    ema = Ema(net, 0.9)
    fill(net, 3.0)
    ema.update(10**6)
    own = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with ema.applied():
        assert all(torch.equal(tensor, ema.state()[name]) for name, tensor in net.state_dict().items())
        assert not torch.equal(net[0].weight, own["0.weight"])
    assert all(torch.equal(tensor, own[name]) for name, tensor in net.state_dict().items())


def test_the_network_has_its_own_values_back_after_an_error() -> None:
    net = make_net()
    ema = Ema(net, 0.9)
    fill(net, 3.0)
    with pytest.raises(RuntimeError, match="stop"), ema.applied():
        raise RuntimeError("stop")
    assert net[0].weight.unique().tolist() == [3.0]


def test_it_follows_a_network_in_training() -> None:
    net = make_net()
    ema = Ema(net, 0.0)
    for step in range(3):
        net(torch.randn(4, 1, 5, 5)).square().sum().backward()
        with torch.no_grad():
            for p in net.parameters():
                p.sub_(p.grad, alpha=0.1)
                p.grad = None
        ema.update(step)
    assert all(torch.equal(tensor, ema.state()[name]) for name, tensor in net.state_dict().items())


def test_a_resumed_average_goes_on() -> None:
    net = make_net()
    first, second = Ema(net, 0.9), Ema(net, 0.9)
    fill(net, 2.0)
    first.update(0)
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    fill(net, 5.0)
    first.update(1)
    second.update(1)
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        pytest.param(nn.Conv2d(1, 2, 3), "of another network: 9 entries differ", id="names"),
        pytest.param(
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), "the first is '0.weight'", id="shapes"
        ),
    ],
)
def test_an_average_of_another_network(other: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ema(make_net(), 0.9).load(other.state_dict())
