"""Our own convolutions in place of torch's in training steps on CPUs, where they are faster."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convatlas.devices import torch_threads
from convatlas.files import cache_folder
from convatlas.native import CompilerError
from convatlas.training.cpu.bf16_conv import Bf16SafeConv2d
from convatlas.training.cpu.library import HALF, LAST, is_step, library, place
from convatlas.training.cpu.malloc import kept_memory

ROUNDS = 5
SHORTEST = 4  # floats in a vector, of all processors


@dataclasses.dataclass(frozen=True)
class Call:
    """What `library` is to compute of a convolution.

    Attributes:
        name: of its functions.
        sizes: of images and layer, as these take them.
        shape: of the outputs, (B, C, H, W).
    """

    name: str
    sizes: tuple[int, ...]
    shape: tuple[int, int, int, int]


class ReplacedConv2d(Bf16SafeConv2d):
    """A convolution that `library` computes in training steps on a CPU, where that fits."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves x (B, C, H, W)."""
        if not self.fits(input):
            return super().forward(input)
        x = input.to(HALF) if torch.is_autocast_enabled("cpu") else input
        y: Any = _Convolved.apply(x, self.weight, self.bias, self.call(x))
        return y

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step in types that `library` takes; kinds ask for more."""
        is_cast = torch.is_autocast_enabled("cpu")
        return (
            self.training
            and is_step(x)
            and x.shape[1] == self.in_channels
            and (torch.get_autocast_dtype("cpu") == HALF if is_cast else x.dtype == torch.float32)
            and type(self.weight) is nn.Parameter
            and self.weight.dtype == torch.float32
        )

    def call(self, x: Tensor) -> Call:
        """What is to be computed of x, which fits."""
        raise NotImplementedError

    def outputs(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the outputs."""
        (kernel, _), (stride, _), pad = self.kernel_size, self.stride, int(self.padding[0])
        height, width = ((side + 2 * pad - kernel) // stride + 1 for side in x.shape[2:])
        return height, width


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        ctx.name, ctx.sizes = call.name, (x.dtype == HALF, *call.sizes, torch.get_num_threads())
        y = torch.empty(call.shape, dtype=x.dtype, memory_format=LAST)
        compute = getattr(library(), f"train_{call.name}_forward")
        compute(place(x), place(weight), place(bias), place(y), *ctx.sizes)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        asks_x, asks_weight, asks_bias, _ = ctx.needs_input_grad
        grad = grads[0].to(x.dtype).contiguous(memory_format=LAST)
        dx = torch.empty_like(x) if asks_x else None
        dweight = torch.empty_like(weight) if asks_weight else None
        compute = getattr(library(), f"train_{ctx.name}_backward")
        compute(place(grad), place(x), place(weight), place(dx), place(dweight), *ctx.sizes)
        dbias = grad.sum((0, 2, 3), dtype=torch.float32) if asks_bias else None
        return dx, dweight, dbias, None


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Our own convolutions for some of torch's.

    Attributes:
        name: in the names of files.
        layers: what they replace, in words.
        manner: how they are computed, in words.
        kind: what computes them.
        suits: whether a layer is of those that they are for, beside what holds for all kinds; given the
            floats of a vector too, of which channels take whole ones.
        make: one of torch's, of so many channels, to compare with.
        trials: images, channels and sides of maps that the two are compared on, of small and large networks.
    """

    name: str
    layers: str
    manner: str
    kind: type[ReplacedConv2d]
    suits: Callable[[nn.Conv2d, int], bool]
    make: Callable[[int], nn.Conv2d]
    trials: tuple[tuple[int, int, int], ...]

    def find(self, net: nn.Module, lanes: int = SHORTEST) -> list[nn.Conv2d]:
        """The convolutions of a network that these are for.

        Args:
            net: as it is, or changed already.
            lanes: floats in a vector; `library` knows how many there are here.
        """
        return [
            layer
            for layer in net.modules()
            if isinstance(layer, nn.Conv2d)
            and type(layer) in (nn.Conv2d, self.kind)
            and layer.dilation == (1, 1)
            and layer.padding_mode == "zeros"
            and self.suits(layer, lanes)
        ]

    def change(self, net: nn.Module) -> None:
        """Lets a network compute these convolutions of training steps by `library`.

        Where that does not fit (another device, type or layout, evaluation, small maps), they do as torch's.

        Args:
            net: its layers are changed in place; it still saves, loads, prints and answers as before.
        """
        for layer in self.find(net, library().train_lanes()):
            layer.__class__ = self.kind


def gain(ours: Replacement, dtype: torch.dtype | None) -> float:
    """How many times as fast as torch's such convolutions are here, forward and backward.

    It is measured once, in a second or two, and remembered: a run that goes on takes the same way. What
    counts is one thread's time on its processor: a clock on the wall counts what other jobs take, too.

    Args:
        ours: what is compared with torch's.
        dtype: of autocast; None for float32.

    Raises:
        CompilerError: there is no compiler, or the measurement cannot be kept.
    """
    name = f"{Path(library()._name).stem}-{ours.name}"
    path = cache_folder() / "native" / f"{name}-torch{torch.__version__}-{dtype or torch.float32}.json"
    try:
        if not path.exists():
            _write_first(path, json.dumps(_measure(ours, dtype)))
        return float(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise CompilerError(f"what was measured cannot be kept in {path} ({error})") from None


def _measure(ours: Replacement, dtype: torch.dtype | None) -> float:
    with torch.random.fork_rng(devices=[]), kept_memory(), torch_threads(1):
        spent = [_compare(ours, *trial, dtype) for trial in ours.trials]
    return round(sum(theirs for theirs, _ in spent) / sum(ours for _, ours in spent), 2)


def _compare(
    ours: Replacement, images: int, chans: int, side: int, dtype: torch.dtype | None
) -> tuple[float, float]:
    """The least seconds of a step by torch, and by ours, in turns."""
    nets = [ours.make(chans).to(memory_format=LAST) for _ in range(2)]
    ours.change(nets[1])
    x = torch.randn(images, chans, side, side).to(memory_format=LAST, dtype=dtype).requires_grad_()
    least = [math.inf, math.inf]
    for _, (i, net) in itertools.product(range(ROUNDS), enumerate(nets)):
        began = time.thread_time()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            y = net(x)
        y.backward(torch.ones_like(y))
        least[i] = min(least[i], time.thread_time() - began)
    return least[0], least[1]


def _write_first(path: Path, text: str) -> None:
    """Writes a file unless another process was faster: all processes find what the first one wrote."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as draft:
        draft.write(text)
        draft.flush()
        try:
            os.link(draft.name, path)
        except FileExistsError:
            return
