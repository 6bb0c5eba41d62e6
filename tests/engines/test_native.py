"""Our own engine, through its face: built from an exported network, opened, and compared with torch."""

import copy
import itertools
import json
import math
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import convatlas
from convatlas.engines.backend import BackendConfig, BatchFn, EngineError, Job
from convatlas.engines.backends.native import ENGINE
from convatlas.engines.native import steps
from convatlas.files import cache_folder
from peers import randomise, relative

Do = Callable[..., Tensor]
MATRIX = steps.BY_MATRIX_UNIT  # It is emulated where there is none.


class Body(nn.Module):
    """A function of images and layers."""

    def __init__(self, do: Do, *layers: nn.Module) -> None:
        super().__init__()
        self.do = do
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.do(x, *self.layers)


def with_logits(body: nn.Module, shape: tuple[int, int, int, int]) -> nn.Module:
    """Adds a linear layer that reads every value of the last map."""
    torch.manual_seed(0)
    values = body(torch.randn(shape)).flatten(1).shape[1]
    return randomise(nn.Sequential(body, nn.Flatten(), nn.Linear(values, 7, bias=False)))


@torch.no_grad()
def build(
    net: nn.Module,
    shape: tuple[int, int, int, int],
    folder: Path,
    threads: int = 1,
    tolerance: float = 1e-4,
) -> Job:
    source, target = folder / "source", folder / "target"
    source.mkdir()
    target.mkdir()
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(shape),)), source / "net.pt2")
    np.save(source / "check.npy", torch.randn(shape).numpy())
    job = Job(shape, "fp32", threads, tolerance=tolerance)
    ENGINE.build(job, "fp32", source, target)
    return job


def build_and_open(
    net: nn.Module, shape: tuple[int, int, int, int], folder: Path, threads: int = 1, at_once: int = 0
) -> BatchFn:
    job = build(net, shape, folder, threads)
    return ENGINE.open(job, folder / "target", BackendConfig(at_once=at_once))


def force(folder: Path, method: int, block: int, joined: int = 0) -> None:
    """Chooses how convolutions are computed, where they have that method, in place of timing."""
    program = json.loads((folder / "target" / "program.json").read_text())
    chosen = [
        (joined, 0) if step["kind"] == steps.Kind.DEPTHWISE else (method, block) for step in program["steps"]
    ]
    (folder / "target" / "methods.json").write_text(json.dumps(chosen))


@torch.no_grad()
def assert_like_torch(
    net: nn.Module, run: BatchFn, shape: tuple[int, int, int, int], within: float = 3e-5
) -> None:
    """Where timing chooses the method, it may be the matrix unit's, which loses most digits."""
    torch.manual_seed(1)
    x = torch.randn(shape)
    exact = copy.deepcopy(net).double()(x.double())
    assert exact.std() > 1e-6
    assert relative(run(x).double(), exact) <= within


def assert_built_like_torch(body: nn.Module, shape: tuple[int, int, int, int], folder: Path) -> None:
    net = with_logits(body, shape)
    assert_like_torch(net, build_and_open(net, shape, folder), shape)


def conv(*sizes: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(*sizes, **options)  # type: ignore[arg-type]


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, int, int, int]]] = {
    "1x1": (conv(3, 5, 1), (2, 3, 5, 7)),
    "1x1 wide": (conv(33, 70, 1), (2, 33, 5, 5)),
    "1x1 stride 2": (conv(17, 13, 1, stride=2), (1, 17, 7, 5)),
    "3x3 from 3": (conv(3, 13, 3, padding=1), (2, 3, 9, 6)),
    "3x3 unpadded": (conv(13, 33, 3), (1, 13, 7, 9)),
    "3x3 stride 2": (conv(5, 17, 3, stride=2, padding=1), (2, 5, 9, 11)),
    "5x5": (conv(17, 5, 5, padding=2), (1, 17, 6, 7)),
    "1x7": (conv(13, 13, (1, 7), padding=(0, 3)), (1, 13, 5, 9)),  # type: ignore[arg-type]
    "7x1": (conv(13, 13, (7, 1), padding=(3, 0)), (1, 13, 9, 5)),  # type: ignore[arg-type]
    "7x7 stem": (conv(3, 17, 7, stride=2, padding=3, bias=False), (2, 3, 21, 18)),
    "11x11 stride 4": (conv(3, 9, 11, stride=4, padding=2), (1, 3, 31, 31)),
    "same": (conv(5, 8, 5, padding="same"), (1, 5, 7, 8)),
    "valid": (conv(5, 8, 4, padding="valid"), (1, 5, 7, 8)),
    "few channels read twice": (
        Body(lambda x, a, b: a(x) + b(x), conv(3, 5, 3), conv(3, 5, 3)),
        (1, 3, 6, 6),
    ),
    "groups of 17": (conv(34, 34, 3, padding=1, groups=2), (1, 34, 5, 5)),
    "groups of 4": (conv(32, 32, 3, padding=1, groups=8), (1, 32, 7, 7)),
    "groups of 3": (conv(15, 10, 3, padding=1, groups=5), (2, 15, 5, 5)),
    "1x1 in groups": (conv(24, 36, 1, groups=3), (1, 24, 4, 4)),
    "two outputs per channel": (conv(9, 18, 3, padding=1, groups=9), (1, 9, 6, 6)),
}


@pytest.mark.parametrize(("body", "shape"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(body: nn.Module, shape: tuple[int, int, int, int], tmp_path: Path) -> None:
    assert_built_like_torch(body, shape, tmp_path)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("chans", [3, 16, 33])
@pytest.mark.parametrize("width", [5, 14, 17])
def test_depthwise_convolution(chans: int, kernel: int, stride: int, width: int, tmp_path: Path) -> None:
    body = conv(chans, chans, kernel, stride=stride, padding=kernel // 2, groups=chans)
    assert_built_like_torch(body, (2, chans, 11, width), tmp_path)


def inverted(chans: int, wide: int, kernel: int, stride: int) -> nn.Sequential:
    """A block of MobileNet v2, without its sum."""
    return nn.Sequential(
        conv(chans, wide, 1),
        nn.ReLU6(),
        conv(wide, wide, kernel, stride=stride, padding=kernel // 2, groups=wide),
        nn.SiLU(),
        conv(wide, chans, 1),
    )


CHAINS: dict[str, tuple[nn.Module, tuple[int, int, int, int], list[int]]] = {
    "3x3": (inverted(5, 24, 3, 1), (2, 5, 19, 14), [1, 1, 0]),
    "3x3 stride 2": (inverted(8, 17, 3, 2), (1, 8, 33, 21), [1, 1, 0]),
    "5x5": (inverted(16, 32, 5, 1), (3, 16, 12, 9), [1, 1, 0]),
    "5x5 stride 2": (inverted(8, 40, 5, 2), (2, 8, 15, 16), [1, 1, 0]),
    "3x3 stride 4": (inverted(8, 16, 3, 4), (1, 8, 34, 33), [1, 1, 0]),
    "with its sum": (
        Body(lambda x, block: x + block(x), inverted(8, 16, 3, 1)),
        (2, 8, 20, 9),
        [1, 1, 0],
    ),
    "a long row": (inverted(8, 16, 3, 1), (1, 8, 3, 90), [1, 1, 0]),
    "lower than the kernel": (inverted(8, 16, 5, 1), (1, 8, 2, 8), [1, 1, 0]),
    "nothing before": (
        nn.Sequential(nn.ReLU(), conv(16, 16, 3, padding=1, groups=16), conv(16, 40, 1)),
        (1, 16, 40, 10),
        [1, 0],
    ),
    "two in turn": (
        nn.Sequential(
            *(
                m
                for _ in range(2)
                for m in (conv(16, 16, 3, padding=1, groups=16), conv(16, 16, 1), nn.ReLU())
            )
        ),
        (2, 16, 9, 9),
        [1, 0, 1, 0],
    ),
    "read by another too": (
        Body(
            lambda x, a, b, c: (lambda wide: c(b(wide)) + wide)(a(x)),
            conv(8, 16, 1),
            conv(16, 16, 3, padding=1, groups=16),
            conv(16, 16, 1),
        ),
        (1, 8, 9, 9),
        [0, 1, 0],
    ),
    "part of a concatenation": (
        Body(
            lambda x, a, b: functional.relu(torch.cat([b(a(x)), x], 1)),
            conv(8, 8, 1),
            conv(8, 8, 3, padding=1, groups=8),
        ),
        (1, 8, 9, 9),
        [0, 1, 0],  # The first one copies the images.
    ),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("body", "shape", "chained"), CHAINS.values(), ids=CHAINS)
def test_depthwise_convolution_together_with_its_neighbours(
    body: nn.Module, shape: tuple[int, int, int, int], chained: list[int], threads: int, tmp_path: Path
) -> None:
    net = with_logits(body, shape)
    job = build(net, shape, tmp_path, threads)
    program = json.loads((tmp_path / "target" / "program.json").read_text())
    assert [step["chained"] for step in program["steps"]][: len(chained)] == chained
    for method, joined in itertools.product((0, MATRIX), (0, 1, 2, 3)):
        force(tmp_path, method, 0, joined)
        assert_like_torch(net, ENGINE.open(job, tmp_path / "target", BackendConfig()), shape)


WINOGRAD: dict[str, tuple[nn.Module, tuple[int, int, int, int]]] = {
    "even": (conv(16, 32, 3, padding=1), (2, 16, 8, 8)),
    "odd": (conv(17, 33, 3, padding=1), (2, 17, 7, 9)),
    "unpadded": (conv(24, 5, 3, bias=False), (1, 24, 10, 5)),
    "smaller than a tile": (conv(16, 16, 3, padding=1), (1, 16, 1, 3)),
    "groups": (conv(32, 64, 3, padding=1, groups=2), (1, 32, 6, 6)),
    "narrow groups": (conv(32, 32, 3, padding=1, groups=8), (1, 32, 5, 6)),
    "sum, then ReLU": (
        Body(lambda x, a, b: functional.relu(a(x) + b(x)), conv(16, 19, 3, padding=1), conv(16, 19, 1)),
        (2, 16, 5, 5),
    ),
    "asymmetric": (Body(lambda x, a: a(functional.pad(x, (0, 2, 1, 0))), conv(16, 8, 3)), (1, 16, 6, 5)),
}


@pytest.mark.parametrize("side", [2, 4])
@pytest.mark.parametrize(("body", "shape"), WINOGRAD.values(), ids=WINOGRAD)
def test_winograd_in_blocks_of_tiles(
    body: nn.Module, shape: tuple[int, int, int, int], side: int, tmp_path: Path
) -> None:
    net = with_logits(body, shape)
    job = build(net, shape, tmp_path, threads=2)
    for block in (0, 1, 6, 24, 96):
        force(tmp_path, side, block)
        assert_like_torch(net, ENGINE.open(job, tmp_path / "target", BackendConfig()), shape, within=1e-5)


FILTERS: dict[str, tuple[nn.Module, int, int]] = {
    "5x5": (conv(17, 33, 5, padding=2), 17, 2),
    "5x5 in groups": (conv(32, 64, 5, groups=2), 32, 2),
    "1x7": (conv(16, 24, (1, 7), padding=(0, 3)), 16, 2),  # type: ignore[arg-type]
    "7x1": (conv(16, 24, (7, 1), padding=(3, 0)), 16, 2),  # type: ignore[arg-type]
    "1x3": (conv(19, 16, (1, 3), padding=(0, 1)), 19, 4),  # type: ignore[arg-type]
    "3x1": (conv(19, 16, (3, 1)), 19, 4),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("body", "chans", "side"), FILTERS.values(), ids=FILTERS)
def test_other_filters_in_tiles(body: nn.Module, chans: int, side: int, tmp_path: Path) -> None:
    shape = (2, chans, 9, 10)
    net = with_logits(body, shape)
    job = build(net, shape, tmp_path, threads=2)
    force(tmp_path, 0, 0)
    direct = ENGINE.open(job, tmp_path / "target", BackendConfig())
    torch.manual_seed(2)
    x = torch.randn(shape)
    for block in (0, 5, 48):
        force(tmp_path, side, block)
        batch_fn = ENGINE.open(job, tmp_path / "target", BackendConfig())
        assert_like_torch(net, batch_fn, shape, within=1e-5)
        assert not torch.equal(batch_fn(x), direct(x))  # So that it is not the same method.


BY_THE_MATRIX_UNIT: dict[str, tuple[nn.Module, tuple[int, int, int, int]]] = {
    **{f"{name}, wide": CONVOLUTIONS[name] for name in ("1x1 wide", "3x3 from 3", "3x3 unpadded", "5x5")},
    **{name: CONVOLUTIONS[name] for name in ("1x7", "7x1", "7x7 stem", "11x11 stride 4", "1x1 in groups")},
    **{name: CONVOLUTIONS[name] for name in ("3x3 stride 2", "groups of 17", "groups of 4", "groups of 3")},
    **{name: WINOGRAD[name] for name in ("even", "narrow groups", "sum, then ReLU", "asymmetric")},
    "one tile of columns": (conv(32, 16, 3, padding=1), (1, 32, 6, 7)),
    "three tiles of columns, 40 rows": (conv(64, 48, 1), (1, 64, 5, 8)),
    "1x1 stride 2, padded": (conv(35, 13, 1, stride=2, padding=1), (2, 35, 7, 5)),
    "3x1 stride 2": (conv(19, 40, (3, 1), stride=2), (2, 19, 9, 8)),  # type: ignore[arg-type]
    "1x3 stride (1, 3)": (conv(19, 40, (1, 3), stride=(1, 3), padding=(0, 2)), (2, 19, 9, 8)),  # type: ignore[arg-type]
    "2x2 stride 3": (conv(19, 40, 2, stride=3), (2, 19, 9, 8)),
    "5x5 stride 2 of three images": (conv(20, 33, 5, stride=2, padding=2), (3, 20, 12, 11)),
    "SiLU": (nn.Sequential(conv(16, 40, 3, padding=1), nn.SiLU()), (1, 16, 6, 6)),
    "gate": (Body(lambda x, *a: gate(x, *a), conv(34, 4, 1), conv(4, 34, 1), conv(34, 34, 1)), (2, 34, 5, 5)),
    "norm, ReLU, 1x1": (nn.Sequential(nn.BatchNorm2d(34), nn.ReLU(), conv(34, 40, 1)).eval(), (2, 34, 5, 5)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(9 * 20, 50)), (3, 9, 4, 5)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("body", "shape"), BY_THE_MATRIX_UNIT.values(), ids=BY_THE_MATRIX_UNIT)
def test_matrix_unit(body: nn.Module, shape: tuple[int, int, int, int], threads: int, tmp_path: Path) -> None:
    net = with_logits(body, shape)
    job = build(net, shape, tmp_path, threads)
    force(tmp_path, 0, 0)
    direct = ENGINE.open(job, tmp_path / "target", BackendConfig())
    torch.manual_seed(2)
    x = torch.randn(shape)
    for block in (0, 1, 32, 70):
        force(tmp_path, MATRIX, block)
        batch_fn = ENGINE.open(job, tmp_path / "target", BackendConfig())
        assert_like_torch(net, batch_fn, shape)
        assert not torch.equal(batch_fn(x), direct(x))  # So that it is not the same method.


@torch.no_grad()
def test_matrix_unit_is_left_alone_where_it_would_lose_too_many_digits(tmp_path: Path) -> None:
    shape = (2, 64, 8, 8)
    net = with_logits(conv(64, 64, 3, padding=1), shape)
    has_unit = bool(steps.library().net_has_tiles())
    for tolerance, may_use in ((1e-4, has_unit), (1e-7, False)):
        folder = tmp_path / str(tolerance)
        folder.mkdir()
        job = build(net, shape, folder, tolerance=tolerance)
        ENGINE.open(job, folder / "target", BackendConfig())
        methods = json.loads((folder / "target" / "methods.json").read_text())
        assert json.loads((folder / "target" / "digits.json").read_text()) is may_use
        if not may_use:
            assert MATRIX not in [method for method, _ in methods]


@torch.no_grad()
def test_matrix_unit_keeps_the_digits_of_three_products(tmp_path: Path) -> None:
    shape = (1, 256, 9, 9)
    net = with_logits(conv(256, 64, 3, bias=False), shape)
    job = build(net, shape, tmp_path)
    force(tmp_path, MATRIX, 0)
    x = torch.randn(shape)
    exact = copy.deepcopy(net).double()(x.double())
    error = relative(ENGINE.open(job, tmp_path / "target", BackendConfig())(x).double(), exact)
    # Of one product, as bfloat16 alone has it, it would be about 3e-3.
    assert error <= 2e-5
    assert relative(net.bfloat16()(x.bfloat16()).double(), exact) >= 1e-3


@torch.no_grad()
def test_torch_can_use_the_matrix_unit_before_and_after(tmp_path: Path) -> None:
    shape = (1, 64, 9, 9)
    net = with_logits(conv(64, 64, 3), shape)
    job = build(net, shape, tmp_path)
    force(tmp_path, MATRIX, 0)
    run = ENGINE.open(job, tmp_path / "target", BackendConfig())
    half = conv(64, 64, 3).bfloat16().to(memory_format=torch.channels_last)
    x = torch.randn(shape)
    expected, logits = half(x.bfloat16()), run(x)
    for _ in range(3):
        assert torch.equal(half(x.bfloat16()), expected)
        assert torch.equal(run(x), logits)


@torch.no_grad()
def test_matrix_unit_leaves_other_images_alone_where_one_has_nan(tmp_path: Path) -> None:
    shape = (3, 20, 7, 6)
    for number, body in enumerate((conv(20, 33, 3, padding=1), conv(20, 33, 1))):
        folder = tmp_path / str(number)
        folder.mkdir()
        net = with_logits(body, shape)
        job = build(net, shape, folder)
        force(folder, MATRIX, 0)
        x = torch.randn(shape)
        x[1] = math.nan
        logits, expected = ENGINE.open(job, folder / "target", BackendConfig())(x), net(x)
        assert logits[1].isnan().all()
        assert relative(logits[::2], expected[::2]) <= 3e-5


def test_a_method_that_a_filter_has_not_got_is_the_direct_one(tmp_path: Path) -> None:
    shape = (1, 16, 9, 9)
    net = with_logits(conv(16, 8, 7), shape)
    job = build(net, shape, tmp_path)
    force(tmp_path, 4, 6)
    assert_like_torch(net, ENGINE.open(job, tmp_path / "target", BackendConfig()), shape)


def hard_read_again(x: Tensor, first: nn.Module) -> Tensor:
    before = first(x)
    doubled = before * 2.0
    after = functional.hardtanh_(before, -0.5, 0.7)
    return torch.cat([doubled, after, before], 1)


def chain(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def gate(x: Tensor, squeeze: nn.Module, expand: nn.Module, last: nn.Module) -> Tensor:
    factor = torch.sigmoid(expand(functional.silu(squeeze(x.mean((2, 3), keepdim=True)))))
    return last(x * factor) + factor * x


def dense(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
    one = torch.cat([x, a(x)], 1)
    two = torch.cat([one, b(one)], 1)
    return torch.cat([two, c(two)], 1)


def shared(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
    """Two maps that are parts of one concatenation, and of another that is itself a part of a third."""
    one, other = a(x), b(x)
    pair = torch.cat([one, other], 1)
    return torch.cat([pair, c(x)], 1).sigmoid() + torch.cat([one, other, c(pair)], 1)


def shortcut_a(x: Tensor, a: nn.Module) -> Tensor:
    """Option A of He et al. 2016: every second pixel, and channels of zeros."""
    return a(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 4))


def flattened_parts(x: Tensor, a: nn.Module) -> Tensor:
    return torch.cat([a(x).mean((2, 3)), functional.adaptive_avg_pool2d(x, 1).flatten(1)], 1)


norm = nn.BatchNorm2d
BODIES: dict[str, tuple[nn.Module, tuple[int, int, int, int]]] = {
    "zero padding by itself": (Body(lambda x: functional.pad(x, (1, 2, 0, 3))), (1, 5, 4, 4)),
    "padding, then depthwise": (
        Body(lambda x, a: a(functional.pad(x, (0, 1, 0, 1))), conv(9, 9, 3, stride=2, groups=9)),
        (2, 9, 8, 6),
    ),
    "padding read twice": (
        Body(
            lambda x, a: chain(p := functional.pad(x, (1, 1, 1, 1)), a) + p[:, :, 1:-1, 1:-1], conv(5, 5, 3)
        ),
        (1, 5, 6, 6),
    ),
    "padding, then max": (
        Body(lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 3, 2)),
        (1, 5, 6, 6),
    ),
    "max": (nn.MaxPool2d(3, 2, 1), (2, 13, 7, 9)),
    "max, ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), (2, 17, 6, 8)),
    "average": (nn.AvgPool2d(3, 2, 1), (2, 13, 7, 9)),
    "average, border left out": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (2, 5, 7, 9)),
    "average, ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 33, 6, 8)),
    "average, ceil, border left out": (
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        (1, 3, 6, 8),
    ),
    "mean": (Body(lambda x: x.mean((2, 3))), (3, 33, 5, 7)),
    "mean kept, dims from the end": (Body(lambda x: x.mean((-1, -2), keepdim=True)), (2, 13, 5, 7)),
    "amax": (Body(lambda x: x.amax((2, 3))), (2, 13, 5, 7)),
    "adaptive": (nn.AdaptiveAvgPool2d((2, 3)), (2, 17, 4, 9)),
    "adaptive to its own size": (nn.AdaptiveAvgPool2d((4, 9)), (1, 5, 4, 9)),
    "sum with itself": (Body(lambda x, a: (y := a(x)) + y, conv(5, 9, 1)), (1, 5, 4, 4)),
    "sum with the input": (
        Body(lambda x, a: functional.relu(a(x) + x), conv(17, 17, 3, padding=1)),
        (2, 17, 5, 5),
    ),
    "sum in place": (
        Body(lambda x, a, b: (y := a(x)).add_(b(x)) * 2.0 + y, conv(5, 9, 1), conv(5, 9, 1)),
        (1, 5, 4, 4),
    ),
    "number added in place": (
        Body(lambda x, a: (y := a(x)).add_(3.0) * 2.0 + y, conv(5, 9, 1)),
        (1, 5, 4, 4),
    ),
    "numbers": (Body(lambda x, a: (a(x) * 0.5 + 1.5) / 3.0, conv(5, 9, 1)), (1, 5, 4, 4)),
    "SE gate": (Body(gate, conv(17, 4, 1), conv(4, 17, 1), conv(17, 17, 1)), (2, 17, 5, 5)),
    "gate, then 3x3": (
        Body(lambda x, a, b: b(x * torch.sigmoid(a(x.mean((2, 3), True)))), conv(9, 9, 1), conv(9, 9, 3)),
        (2, 9, 5, 5),
    ),
    "norm before 1x1": (Body(chain, norm(13), conv(13, 5, 1)), (2, 13, 5, 5)),
    "norm, ReLU, 1x1": (Body(chain, norm(17), nn.ReLU(), conv(17, 9, 1)), (2, 17, 5, 5)),
    "norm, ReLU, 3x3": (Body(chain, norm(17), nn.ReLU(), conv(17, 9, 3, padding=1)), (2, 17, 5, 5)),
    "norm, SiLU, 1x1": (Body(chain, norm(17), nn.SiLU(), conv(17, 9, 1)), (1, 17, 5, 5)),
    "pre-activation": (
        Body(
            lambda x, n, a, b: a(y := functional.relu(n(x))) + b(y), norm(17), conv(17, 9, 1), conv(17, 9, 1)
        ),
        (2, 17, 5, 5),
    ),
    "ReLU before depthwise, read twice": (
        Body(lambda x, a: a(functional.relu(x)) + x, conv(19, 19, 3, padding=1, groups=19)),
        (2, 19, 7, 7),
    ),
    "ReLU in place, old map read": (
        Body(lambda x, a: functional.relu_(y := a(x)) * 3.0 + y, conv(5, 9, 1)),
        (1, 5, 4, 4),
    ),
    "hardtanh in place, old map read": (Body(hard_read_again, conv(5, 9, 1)), (1, 5, 4, 4)),
    "dense": (Body(dense, conv(3, 5, 3, padding=1), conv(8, 4, 1), conv(12, 7, 3, padding=1)), (2, 3, 5, 5)),
    "shared parts": (Body(shared, conv(4, 3, 1), conv(4, 1, 1), conv(4, 5, 1)), (2, 4, 5, 5)),
    "a part twice": (Body(lambda x, a: torch.cat([(y := a(x)), x, y], 1), conv(3, 5, 1)), (2, 3, 5, 5)),
    "slices": (Body(lambda x, a: a(x)[:, :, 1:, :-1] + a(x)[:, :, :-1, 1:], conv(5, 9, 3)), (1, 5, 8, 8)),
    "option A": (Body(shortcut_a, conv(5, 9, 3, stride=2, padding=1)), (2, 5, 7, 8)),
    "flattened parts": (Body(flattened_parts, conv(5, 9, 1)), (2, 5, 7, 8)),
    "linear layers over a map": (
        Body(chain, conv(5, 9, 3), nn.Flatten(), nn.Linear(9 * 4 * 5, 33), nn.ReLU(), nn.Dropout()),
        (3, 5, 6, 7),
    ),
}


@pytest.mark.parametrize(("body", "shape"), BODIES.values(), ids=BODIES)
def test_operation(body: nn.Module, shape: tuple[int, int, int, int], tmp_path: Path) -> None:
    assert_built_like_torch(body.eval(), shape, tmp_path)


ACTIVATIONS: dict[str, Do] = {
    "relu": functional.relu,
    "relu in place": functional.relu_,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "silu in place": lambda x: functional.silu(x, inplace=True),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardtanh": functional.hardtanh,
    "hardtanh of its own": lambda x: functional.hardtanh(x, -0.25, 3.0),
}


@pytest.mark.parametrize("factor", [1e-3, 1.0, 40.0], ids=["small", "usual", "large"])
@pytest.mark.parametrize("do", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activation_after_a_convolution(do: Do, factor: float, tmp_path: Path) -> None:
    body = Body(lambda x, a: do(a(x * factor)), conv(13, 19, 1, bias=False))
    assert_built_like_torch(body, (1, 13, 5, 5), tmp_path)


NAN_BODIES: dict[str, nn.Module] = {
    **{name: Body(lambda x, a, do=do: do(a(x)), conv(9, 9, 1)) for name, do in ACTIVATIONS.items()},
    "max": Body(lambda x: functional.max_pool2d(x, 3)),
    "amax": Body(lambda x: x.amax((2, 3))),
    "ReLU as a depthwise convolution reads": Body(
        lambda x, a: a(functional.relu(x)) + x, conv(9, 9, 3, padding=1, groups=9)
    ),
    "ReLU as a 1x1 convolution reads": Body(chain, norm(9), nn.ReLU(), conv(9, 9, 1)),
}


@pytest.mark.parametrize("place", [(0, 0, 0), (8, 4, 4)], ids=["first", "last"])
@pytest.mark.parametrize("body", NAN_BODIES.values(), ids=NAN_BODIES)
@torch.no_grad()
def test_nan_comes_out_where_it_does_in_torch(
    body: nn.Module, place: tuple[int, int, int], tmp_path: Path
) -> None:
    shape = (2, 9, 6, 6)
    net = with_logits(body.eval(), shape)
    x = torch.randn(shape)
    x[0, *place] = math.nan
    logits, expected = build_and_open(net, shape, tmp_path)(x), net(x)
    assert expected[0].isnan().all()
    assert torch.equal(logits.isnan(), expected.isnan())
    assert relative(logits[1], expected[1]) <= 3e-5


@torch.no_grad()
def test_relu_leaves_infinity(tmp_path: Path) -> None:
    net = Body(lambda x: functional.relu(x).mean((2, 3)))
    logits = build_and_open(net, (1, 3, 2, 2), tmp_path)(torch.full((1, 3, 2, 2), math.inf))
    assert torch.equal(logits, torch.full((1, 3), math.inf))


NETWORKS = {
    "lenet5": 32,
    "nin_cifar": 32,
    "googlenet_tv": 32,
    "preact_resnet18": 32,
    "densenet40_12_cifar": 16,
    "mobilenet_v1_025": 64,
    "mobilenet_v2_035": 64,
    "efficientnet_b0": 32,
    "se_resnet18": 32,
}


@pytest.mark.parametrize(("name", "side"), NETWORKS.items(), ids=NETWORKS)
@torch.no_grad()
def test_network(name: str, side: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = randomise(convatlas.create_model(name))
    shape = (2, 1 if name == "lenet5" else 3, side, side)
    x = torch.randn(shape)
    assert relative(build_and_open(net, shape, tmp_path)(x), net(x)) <= 2e-5


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return randomise(convatlas.create_model("resnet20_cifar"))


USES = {
    "one image": (1, 1, 0),
    "five images": (5, 1, 0),
    "two threads": (3, 2, 0),
    "streams of one": (4, 2, 1),
    "streams of two": (4, 2, 2),
}


@pytest.mark.parametrize(("batch", "threads", "at_once"), USES.values(), ids=USES)
@torch.no_grad()
def test_logits_do_not_depend_on_layout_or_neighbours(
    resnet: nn.Module, batch: int, threads: int, at_once: int, tmp_path: Path
) -> None:
    shape = (batch, 3, 17, 18)
    run = build_and_open(resnet, shape, tmp_path, threads, at_once)
    x = torch.randn(shape)
    logits = run(x)
    assert relative(logits, resnet(x)) <= 3e-5
    assert torch.equal(run(x.contiguous(memory_format=torch.channels_last)), logits)
    assert torch.equal(run(x.transpose(2, 3).contiguous().transpose(2, 3)), logits)
    others = torch.randn(shape)
    others[0] = x[0]
    assert torch.equal(run(others)[0], logits[0])


@torch.no_grad()
def test_two_sessions_and_two_callers_at_a_time(resnet: nn.Module, tmp_path: Path) -> None:
    shape = (1, 3, 16, 16)
    job = build(resnet, shape, tmp_path, threads=2)
    sessions = [ENGINE.open(job, tmp_path / "target", BackendConfig()) for _ in range(2)]
    images = torch.randn(4, *shape)
    expected = [resnet(x) for x in images]
    errors = [math.inf] * 4

    def ask(caller: int) -> None:
        errors[caller] = max(
            relative(sessions[caller % 2](images[caller]), expected[caller]) for _ in range(20)
        )

    callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert max(errors) <= 1e-5


@pytest.mark.parametrize(
    "x",
    [torch.zeros(3, 3, 16, 16), torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 16, 16, dtype=torch.float64)],
    ids=["batch", "size", "type"],
)
def test_images_of_another_shape_are_refused(x: Tensor, tmp_path: Path) -> None:
    run = build_and_open(with_logits(conv(3, 5, 3), (2, 3, 16, 16)), (2, 3, 16, 16), tmp_path)
    with pytest.raises(ValueError, match=r"float32 of shape \(B, 3, 16, 16\) with B a multiple of 2, not"):
        run(x)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "operation": (Body(lambda x: functional.gelu(x)), r"it has no aten\.gelu\.default"),
    "local response normalisation": (nn.LocalResponseNorm(5), "no product of two maps"),
    "dilation": (conv(4, 4, 3, dilation=2), "no dilated convolution"),
    "dilated pooling": (nn.MaxPool2d(2, dilation=2), "no dilated pooling"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "no average with a divisor of its own"),
    "broadcast sum": (Body(lambda x: x + x.mean((2, 3), keepdim=True)), "no sum of maps of two sizes"),
    "sum with a factor": (Body(lambda x: torch.add(x, x, alpha=2)), "no sum with a factor"),
    "product": (Body(lambda x: x * x), "no product of two maps"),
    "rows side by side": (Body(lambda x: torch.cat([x, x], 2)), "no concatenation but that of channels"),
    "flattened maps": (
        Body(lambda x: torch.cat([x.flatten(1), x.flatten(1)], 1)),
        "no concatenation of maps that were flattened",
    ),
    "norm of a flattened map": (
        Body(chain, nn.Flatten(), nn.BatchNorm1d(4 * 8 * 8)),
        "no normalisation of a map that was flattened",
    ),
    "mean of rows": (Body(lambda x: x.mean(2)), "no mean but that of all pixels"),
    "maximum of rows": (Body(lambda x: x.amax(2)), "no maximum but that of all pixels"),
    "uneven pooling": (nn.AdaptiveAvgPool2d(3), "no pooling to a size that does not divide the map"),
    "channels": (Body(lambda x: x[:, 1:]), "no part of a map but rows and columns"),
    "reflection": (Body(lambda x: functional.pad(x, (1, 1, 1, 1), "reflect")), "no padding but zeros"),
    "channels in front": (Body(lambda x: functional.pad(x, (0, 0, 0, 0, 1, 0))), "no new channels in front"),
    "pixels as channels": (
        Body(lambda x: x.view(2, 16, 4, 4)),
        r"no aten\.view\.default that gives \(2, 16, 4, 4\)",
    ),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_it_has_not_got_is_named(body: nn.Module, reason: str, tmp_path: Path) -> None:
    net = with_logits(body.eval(), (2, 4, 8, 8))
    with pytest.raises(EngineError, match=reason):
        build(net, (2, 4, 8, 8), tmp_path)


def test_lenet_as_printed_multiplies_by_maps_of_its_own(tmp_path: Path) -> None:
    net = convatlas.create_model("lenet5_1998")
    with pytest.raises(EngineError, match="it has no constant maps"):
        build(net, (1, 1, 32, 32), tmp_path)


def test_maps_are_no_logits(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="it gives logits only"):
        build(conv(3, 5, 3), (1, 3, 8, 8), tmp_path)


def test_has_full_precision_on_the_cpu_only() -> None:
    assert ENGINE.precisions(Job((1, 3, 8, 8), "int8", 1)) == ("fp32",)
    assert ENGINE.precisions(Job((1, 3, 8, 8), "fp32", 1, "cuda")) == ()


def test_streams_are_tried_where_the_batch_is_large_enough() -> None:
    assert [config.at_once for config in ENGINE.configs(Job((8, 3, 8, 8), "fp32", 2), "fp32")] == [0, 4, 2, 1]
    assert [config.at_once for config in ENGINE.configs(Job((1, 3, 8, 8), "fp32", 2), "fp32")] == [0]


@pytest.fixture
def no_library_in_memory() -> object:
    """What is in memory is forgotten, before and after."""
    steps.library.cache_clear()
    yield
    steps.library.cache_clear()


@pytest.mark.usefixtures("no_library_in_memory")
def test_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps.library()
    kept = list((cache_folder() / "native").glob("net-*"))
    assert sorted(path.suffix for path in kept) == [".sha256", ".so"]
    steps.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: pytest.fail("it is compiled again"))
    steps.library()
    assert list((cache_folder() / "native").glob("net-*")) == kept


@pytest.mark.usefixtures("no_library_in_memory")
def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineError, match=r"needs a C\+\+ compiler, such as g\+\+ or clang\+\+"):
        build(with_logits(conv(3, 5, 3), (1, 3, 8, 8)), (1, 3, 8, 8), tmp_path)


@pytest.mark.usefixtures("no_library_in_memory")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'net.cpp:1: error: no vectors here' >&2; exit 1", "the compiler fails: .*no vectors here"),
        ("exit 3", "the compiler fails: status 3"),
        ("exit 0", "the compiler fails: it wrote nothing"),
    ],
    ids=["error", "silent", "nothing"],
)
def test_a_compiler_that_fails(
    script: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(EngineError, match=reason):
        steps.library()
    assert list((tmp_path / "cache" / "convatlas" / "native").iterdir()) == []


@pytest.mark.usefixtures("no_library_in_memory")
def test_a_cache_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "convatlas").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="the compiled library cannot be kept in"):
        steps.library()
