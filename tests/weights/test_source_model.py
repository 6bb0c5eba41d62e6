"""Weights whose keys fit several models: the right one is asked for, or told by comparison."""

import warnings

import pytest
import timm
import torch
import torchvision
from tests.peers import randomise, relative
from torch import nn

from convatlas import create_model
from convatlas.data.transforms import Transform
from convatlas.weights import WeightsError, load_foreign

AUTHORS = {"same_padding": True, "norm_eps": 1e-3, "norm_momentum": 0.01}


def answers(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(x)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return randomise(timm.create_model(name)).eval()


@pytest.mark.parametrize(
    ("model", "ours", "options"),
    [
        ("tf_efficientnet_b0", "efficientnet_b0", AUTHORS),
        ("efficientnet_lite0", "efficientnet_lite0", {"same_padding": False, "norm_eps": 1e-5}),
    ],
)
def test_another_model_is_refused_with_the_options_that_fit(
    model: str, ours: str, options: dict[str, object]
) -> None:
    peer, net = small(model), create_model(ours)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for given, name in ((peer.state_dict(), model), (peer.state_dict(), f"{model}.in1k"), (peer, None)):
        with pytest.raises(WeightsError, match="norm_eps=") as caught:
            load_foreign(net, given, "timm", model=name)
        told = {key: value for key, value in options.items() if name or key != "norm_momentum"}
        for option, value in told.items():
            assert f"{option}={value!r}" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    net = create_model(ours, **({"norm_momentum": 0.1} | options))
    load_foreign(net, peer, "timm")
    x = torch.randn(1, 3, 70, 70, generator=torch.Generator().manual_seed(1))
    assert relative(answers(net, x), answers(peer, x)) < 1e-4


def test_weights_alone_are_loaded_with_a_warning_that_lists_the_models() -> None:
    weights = small("efficientnet_b0").state_dict()
    with pytest.warns(
        UserWarning, match=r"efficientnet_b\[0-7\] needs the options that it has; tf_eff.*same_p"
    ):
        load_foreign(create_model("efficientnet_b0"), weights, "timm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_foreign(create_model("efficientnet_b0"), weights, "timm", model="efficientnet_b0.ra_in1k")
        load_foreign(create_model("efficientnet_b0", **AUTHORS), weights, "timm")


def test_a_model_that_the_table_lacks_is_named_with_its_nearest() -> None:
    with pytest.raises(WeightsError, match=r"`model`='tf_efficientnet_lite0': .* knows no model .* nearest"):
        load_foreign(create_model("efficientnet_b0"), {}, "timm", model="tf_efficientnet_lite0")


def test_an_input_transform_is_told_and_set() -> None:
    torch.manual_seed(0)
    peer = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True)
    peer = randomise(peer).eval()
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = answers(peer, (x - mean[:, None, None]) / std[:, None, None])
    cases = [
        (peer, None, "has `transform_input`"),
        (peer.state_dict(), "inception_v3", "has `transform_input`"),
        (peer.state_dict(), None, "with `transform_input` images of mean 0.5 and std 0.5"),
    ]
    for given, model, message in cases:
        net = create_model("inception_v3")
        net.transform = Transform("photo", (3, 299, 299), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        with pytest.warns(UserWarning, match=message):
            load_foreign(net, given, "torchvision", model=model)
        if "has" in message:
            assert net.transform.mean == net.transform.std == (0.5, 0.5, 0.5)
        assert relative(answers(net, (x - 0.5) / 0.5), expected) < 1e-4
    assert peer.transform_input


def test_a_difference_that_no_attribute_shows_is_seen_in_the_outputs() -> None:
    class Leaky(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
            return self.inner.state_dict()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.flip(-1))

    torch.manual_seed(0)
    peer = Leaky(randomise(torchvision.models.resnet18())).eval()
    net = create_model("resnet18")
    before = net.stem.conv.weight.clone()
    with pytest.raises(WeightsError, match="the weights fit, but the model answers otherwise"):
        load_foreign(net, peer, "torchvision")
    assert torch.equal(net.stem.conv.weight, before)
    load_foreign(net, peer.inner, "torchvision")
