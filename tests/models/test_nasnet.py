"""NASNet-A against Zoph et al. 2017, the authors' published sizes and timm."""

import math
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.data import TensorDataset

from convatlas import create_model, train
from convatlas.blocks.cell import Cell, Edge, Genotype
from convatlas.models.nasnet import NASNet
from convatlas.weights import load_foreign
from counting import MacCounter
from peers import randomise, relative

SIZES = {"nasnet_a_mobile": 224, "nasnet_a_large": 331, "nasnet_a_cifar": 32}
# Mobile and Large: TF-slim, Keras, pytorchcv. CIFAR: `cifar_params` below.
PARAMS = {"nasnet_a_mobile": 5_289_978, "nasnet_a_large": 88_753_150, "nasnet_a_cifar": 3_346_538}
MACS = {"nasnet_a_mobile": 563_638_816, "nasnet_a_large": 23_783_414_658}
SMALL = {"cells": 1, "chans": 8, "stem_chans": 8}


def meta_model(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options).eval()


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def separable(in_chans: int, chans: int, size: int) -> int:
    """Twice depthwise, pointwise and norm; the first changes the channels."""
    first = in_chans * size**2 + in_chans * chans + 2 * chans
    return first + chans * size**2 + chans**2 + 2 * chans


def conv_norm(in_chans: int, chans: int) -> int:
    return in_chans * chans + 2 * chans


def cifar_params() -> int:
    """6 @ 768 by Figure 4: 32, 64 and 128 channels a node, six normal cells each, two reductions."""
    total = 27 * 96 + 2 * 96
    outputs: list[int] = [96]
    for chans, reduces in ((32, False), (64, True), (128, True)):
        for i in range(7 if reduces else 6):
            total += conv_norm(outputs[-1], chans)
            if len(outputs) == 1:
                # The stem is both inputs, 96 channels: what meets it makes 32 by itself, and so does the
                # concatenation. Two separable 3x3 and one 5x5, an identity, two means.
                total += separable(96, 32, 3) * 2 + separable(96, 32, 5) + 4 * conv_norm(96, 32)
                total += separable(32, 32, 5) + separable(32, 32, 3)
            else:
                total += conv_norm(outputs[-2], chans)  # Factorised or not, as many.
                sizes = (5, 7, 7, 5, 3) if reduces and i == 0 else (5, 3, 5, 3, 3)
                total += sum(separable(chans, chans, size) for size in sizes)
            outputs.append(chans * (4 if reduces and i == 0 else 6))
    return total + 768 * 10 + 10


def test_derivation_for_cifar() -> None:
    assert cifar_params() == PARAMS["nasnet_a_cifar"]


@pytest.mark.parametrize("name", PARAMS)
def test_size_counted_elsewhere(name: str) -> None:
    net = meta_model(name)
    assert count_params(net) - count_params(net.aux_heads) == PARAMS[name]
    assert count_params(meta_model(name, aux_heads=False)) == PARAMS[name]


@pytest.mark.parametrize("name", MACS)
def test_compute_counted_elsewhere(name: str) -> None:
    net = meta_model(name)
    with MacCounter() as counter:
        net(torch.empty(1, 3, SIZES[name], SIZES[name], device="meta"))
    assert counter.macs == MACS[name]


@pytest.mark.parametrize(
    ("name", "channels"), [("nasnet_a_mobile", 528), ("nasnet_a_large", 2016), ("nasnet_a_cifar", 384)]
)
def test_side_classifier_layers(name: str, channels: int) -> None:
    # Mean of 5x5 at stride 3 leaves 4 px of 14 or 16, and 6 of 21.
    left = {"nasnet_a_mobile": 4, "nasnet_a_large": 6, "nasnet_a_cifar": 4}[name]
    classes = 10 if name == "nasnet_a_cifar" else 1000
    expected = conv_norm(channels, 128) + conv_norm(128 * left**2, 768) + 768 * classes + classes
    assert count_params(meta_model(name).aux_heads) == expected


def test_penultimate_channels_and_cells_name_the_networks() -> None:
    nets = {name: meta_model(name) for name in PARAMS}
    assert [net.num_features for net in nets.values()] == [1056, 4032, 768]
    cells = [sum(isinstance(m, Cell) for m in net.modules()) for net in nets.values()]
    assert cells == [3 * 4 + 4, 3 * 6 + 4, 3 * 6 + 2]


def test_maps_of_large() -> None:
    maps = meta_model("nasnet_a_large").forward_stages(torch.empty(1, 3, 331, 331, device="meta"))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(96, 165, 165), (168, 83, 83), (1008, 42, 42), (2016, 21, 21), (4032, 11, 11)]


def test_side_classifier_answers_and_resets() -> None:
    net = create_model("nasnet_a_mobile", **SMALL, num_classes=5)
    x = torch.randn(2, 3, 64, 64)
    out = net.forward_aux(x)
    assert out.main.shape == (2, 5)
    assert [a.shape for a in out.aux] == [(2, 5)]
    net.reset_classifier(3)
    assert [a.shape for a in net.forward_aux(x).aux] == [(2, 3)]
    assert create_model("nasnet_a_mobile", **SMALL, aux_heads=False).forward_aux(x).aux == ()


def drop_rates(net: nn.Module) -> list[float]:
    return [m.drop_path.drop_rate for m in net.modules() if isinstance(m, Cell)]


def test_drop_path_grows_with_depth_and_with_training() -> None:
    net = meta_model("nasnet_a_cifar")
    assert net.progress == 1.0
    assert drop_rates(net) == pytest.approx([0.4 * (i + 1) / 20 for i in range(20)])
    net.progress = 0.25
    assert drop_rates(net) == pytest.approx([0.1 * (i + 1) / 20 for i in range(20)])
    assert drop_rates(meta_model("nasnet_a_large"))[-1] == 0.3
    assert set(drop_rates(meta_model("nasnet_a_mobile"))) == {0.0}


def test_training_tells_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of scheduled drop-path is 0 at the first step and rises by the same amount with each."""
    told: list[float] = []
    set_progress = NASNet.set_progress

    def listen(net: NASNet, fraction: float) -> None:
        set_progress(net, fraction)
        told.append(drop_rates(net)[-1])

    monkeypatch.setattr(NASNet, "set_progress", listen)
    pixels = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    data = TensorDataset(pixels, torch.tensor([0, 1] * 5))
    small = {**SMALL, "drop_path_rate": 0.4, "aux_heads": False}
    train("nasnet_a_cifar", data=data, model=small, epochs=2, batch_size=2, out=tmp_path)
    assert told == pytest.approx([0.4 * step / len(told) for step in range(len(told))])
    assert len(told) == 8


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_wrong_progress(value: float) -> None:
    net = meta_model("nasnet_a_cifar")
    with pytest.raises(ValueError, match=rf"`progress`={value}; expected the share of training"):
        net.progress = value


def test_drop_path_changes_training_alone() -> None:
    torch.manual_seed(0)
    net = create_model("nasnet_a_cifar", **SMALL, drop_path_rate=0.5)
    x = torch.randn(2, 3, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.progress = 0.0
    assert torch.equal(net(x), net(x))
    net.progress = 1.0
    net.eval()
    assert torch.equal(net(x), net(x))


def test_drop_path_spares_identities() -> None:
    genotype = Genotype(nodes=((Edge("identity", 0), Edge("max3x3", 0)),), concat=(2,))
    torch.manual_seed(0)
    cell = Cell(genotype, 4, 4, 4, drop_path_rate=0.9)
    cell.project, cell.project_prev = nn.Identity(), nn.Identity()
    x = torch.randn(64, 4, 5, 5)
    out = cell(x, x)
    spared = [torch.equal(out[i], x[i]) for i in range(64)]
    assert 40 < sum(spared) < 64  # Where the pooling was dropped, the identity is left.


def test_a_stage_after_a_reduction_skips_it_in_large_only() -> None:
    large, mobile = meta_model("nasnet_a_large"), meta_model("nasnet_a_mobile")
    seen: dict[str, tuple[int, ...]] = {}
    for net, name in ((large, "large"), (mobile, "mobile")):
        outputs: list[torch.Tensor] = []
        for cell in (m for m in net.modules() if isinstance(m, Cell)):

            def keep(_: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
                outputs.append(out)  # noqa: B023

            def look(
                module: nn.Module, args: tuple[torch.Tensor, ...], kept: list[torch.Tensor] = outputs
            ) -> None:
                back = next((len(kept) - i for i, o in enumerate(kept) if o is args[1]), 0)
                seen[name] = (*seen.get(name, ()), back)  # noqa: B023

            cell.register_forward_pre_hook(look)
            cell.register_forward_hook(keep)
        net(torch.empty(1, 3, 64, 64, device="meta"))
    # Counted from the newest output; 0 where the second input is the stem's map.
    assert seen["large"] == (0, 0, *[2] * 6, 2, 3, *[2] * 5, 2, 3, *[2] * 5)
    assert seen["mobile"] == (0, 0, *[2] * 4, 2, *[2] * 4, 2, *[2] * 4)


def test_another_genotype_builds() -> None:
    genotype = Genotype(
        nodes=((Edge("conv3x3", 0), Edge("max5x5", 1)), (Edge("conv1x1", 2), Edge("max7x7", 0))),
        concat=(2, 3),
    )
    net = create_model("nasnet_a_cifar", normal=genotype, reduction=genotype, **SMALL)
    assert net.num_features == 2 * 32
    net(torch.randn(2, 3, 16, 16)).sum().backward()


def test_means_at_the_border() -> None:
    x = torch.randn(1, 3, 64, 64)
    torch.manual_seed(0)
    net = create_model("nasnet_a_mobile", **SMALL).eval()
    other = create_model("nasnet_a_mobile", **SMALL, counts_padding=True).eval()
    other.load_state_dict(net.state_dict())
    assert not torch.allclose(net(x), other(x), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, r"`cells`=0; expected a whole number of at least 1"),
        ({"chans": 30}, r"`chans`=30; the stem's cells have a quarter: expected a multiple of 4"),
        ({"aux_size": 4}, r"`aux_size`=4; expected a whole number of at least 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("nasnet_a_mobile", **options)


def test_initialisation_follows_the_fan_out() -> None:
    torch.manual_seed(0)
    net = create_model("nasnet_a_mobile")
    conv = net.get_submodule("stages.3.0.nodes.0.1.conv1")
    assert conv.depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 49), rel=0.05)
    assert conv.pointwise.weight.std().item() == pytest.approx(math.sqrt(2 / 176), rel=0.05)


@torch.no_grad()
def test_equal_to_timm_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(timm.create_model("nasnetalarge"))
    net = create_model("nasnet_a_large").eval()
    load_foreign(net, peer.state_dict(), source="timm")
    seen: list[torch.Tensor] = []
    for name in ("conv0", "cell_stem_0", "cell_5", "cell_11", "act"):
        peer.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    x = torch.randn(1, 3, 107, 107)
    logits = peer(x)
    assert logits.abs().max() > 0.1
    assert relative(net(x), logits) < 1e-4
    assert max(relative(a, b) for a, b in zip(net.forward_stages(x), seen, strict=True)) < 1e-4
