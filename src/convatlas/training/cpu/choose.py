"""The fast path: what this machine trains fastest with, chosen by itself and said in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from convatlas.native import CompilerError, find_compiler
from convatlas.training.cpu.bf16_conv import make_bf16_safe
from convatlas.training.cpu.depthwise import DEPTHWISE
from convatlas.training.cpu.fused_layers import fuse, has_norms, spare_copies
from convatlas.training.cpu.library import library
from convatlas.training.cpu.replacement import Replacement, gain
from convatlas.training.cpu.winograd import WINOGRAD

REPLACEMENTS = (WINOGRAD, *DEPTHWISE)
LEAST_GAIN = 1.1  # less is lost in the noise of a measurement


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """How a training is computed. Weights and optimiser are float32 in any case.

    Attributes:
        channels_last: whether images and weights lie channels-last in memory.
        autocast: type of convolutions and matrix products; None for float32.
        scaler: whether the loss must be scaled, so that float16 gradients do not vanish.
        fused: whether several steps of the arithmetic are done at once (layers, optimiser).
        native: whether normalisations, with activations behind them, are done by our C++.
        replaced: convolutions that are done by our C++.
        compile: whether torch's compiler is used.
        reasons: what was chosen and why, a line each.
    """

    channels_last: bool
    autocast: torch.dtype | None
    scaler: bool
    fused: bool
    native: bool
    replaced: tuple[Replacement, ...]
    compile: bool
    reasons: tuple[str, ...]


def choose_execution(
    device: torch.device,
    *,
    exact: bool = False,
    compile: bool = False,
    net: nn.Module | None = None,
    replaced: Sequence[str] | None = None,
) -> ExecutionPlan:
    """Chooses how to train on a device.

    Args:
        device: that trains.
        exact: float32 and nothing rearranged, to compare with.
        compile: use torch's compiler too.
        net: that is trained; 2-d convolutions are what channels-last is for.
        replaced: names of the replacements that a training began with, which goes on; None to find out.

    Raises:
        ValueError: `exact` and `compile` at once, or there is no C++ compiler for `compile` on a CPU.
    """
    if exact and compile:
        raise ValueError("`compile`=True; the compiler rearranges sums, which `exact` rules out: choose one")
    if compile and device.type == "cpu":
        try:
            find_compiler()
        except CompilerError as error:
            raise ValueError(f"`compile`=True; on a CPU, it {error}") from None
    if exact:
        reasons = ("exact: float32 in torch's own layout, layers one by one, optimiser one by one",)
        return ExecutionPlan(
            channels_last=False,
            autocast=None,
            scaler=False,
            fused=False,
            native=False,
            replaced=(),
            compile=False,
            reasons=reasons,
        )
    convolves = net is None or any(isinstance(layer, nn.Conv2d) for layer in net.modules())
    autocast, reason = _autocast(device)
    reasons = ["channels-last: convolutions run faster"] if convolves else []
    reasons += [reason, "fused optimiser"]
    native, taken = False, []
    if compile:
        reasons.append("compiled: as asked")
    elif device.type == "cpu" and net is not None:
        if has_norms(net):
            native, reason = _native()
            reasons.append(reason)
        for ours in REPLACEMENTS:
            if ours.find(net):
                is_taken, reason = _is_taken(ours, net, autocast, replaced)
                reasons.append(reason)
                if is_taken:
                    taken.append(ours)
    return ExecutionPlan(
        channels_last=convolves,
        autocast=autocast,
        scaler=autocast is torch.float16,
        fused=True,
        native=native,
        replaced=tuple(taken),
        compile=compile,
        reasons=tuple(reasons),
    )


def _native() -> tuple[bool, str]:
    try:
        library()
    except CompilerError as error:
        return False, f"normalisation and activation one by one: {error}"
    return True, "normalisation and activation at once: C++ that was compiled for this processor"


def _is_taken(
    ours: Replacement, net: nn.Module, autocast: torch.dtype | None, before: Sequence[str] | None
) -> tuple[bool, str]:
    try:
        lanes = library().train_lanes()
        if not ours.find(net, lanes):
            return False, f"{ours.layers} by torch: their channels are not multiples of {lanes}"
        if before is not None:
            is_taken = ours.name in before
            return (
                is_taken,
                f"{ours.layers} {ours.manner if is_taken else 'by torch'}: as when the training began",
            )
        times = gain(ours, autocast)
    except CompilerError as error:
        return False, f"{ours.layers} by torch: {error}"
    if times < LEAST_GAIN:
        return False, f"{ours.layers} by torch: {ours.manner} they are {times:.2f} times as fast here"
    return True, f"{ours.layers} {ours.manner}: {times:.2f} times as fast as torch's here"


def _autocast(device: torch.device) -> tuple[torch.dtype | None, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bfloat16 arithmetic: the GPU has it"
        return torch.float16, "float16 arithmetic with a scaled loss: the GPU has no bfloat16"
    if device.type == "cpu":
        for name, has in (
            ("AMX", torch.cpu._is_amx_tile_supported),
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported),
        ):
            if has():
                return torch.bfloat16, f"bfloat16 arithmetic: the processor has {name}"
        return None, "float32 arithmetic: the processor has no bfloat16 of its own"
    return None, f"float32 arithmetic on {device.type}"


def prepare(net: nn.Module, execution: ExecutionPlan) -> Callable[..., Any]:
    """Makes a network ready for training steps.

    Args:
        net: on its device already, perhaps in a `DistributedDataParallel`; its memory layout may change.
        execution: as chosen.

    Returns:
        What is called with images in place of `net`; it computes in the type that `execution` says.
    """
    if execution.channels_last:
        net.to(memory_format=torch.channels_last)
    # The compiler does better still, and must see plain layers.
    if execution.fused and not execution.compile:
        spare_copies(net)
    if execution.native:
        fuse(net)
    for ours in execution.replaced:
        ours.change(net)
    if execution.autocast is torch.bfloat16:
        make_bf16_safe(net)
    forward: Callable[..., Any] = torch.compile(net) if execution.compile else net
    if execution.autocast is None:
        return forward
    device_type = next(net.parameters()).device.type

    def in_lower_precision(*args: Any) -> Any:
        with torch.autocast(device_type, dtype=execution.autocast):
            return forward(*args)

    return in_lower_precision
