"""`size`: one forward pass of shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .errors import DataDependentError, SizingError
from .request import Input, Request
from .sheet import Sheet
from .tracing import min_input_size, trace

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")
# How the networks of this package end such a message.
_SAID = re.compile(r"; the smallest size that works is \d+x\d+")

# Seconds to look for an input that works, after one that does not.
_PATIENCE = 3.0

InputSize = int | Sequence[Any] | Mapping[str, Any] | torch.Tensor


def size(
    net: nn.Module,
    input_size: InputSize,
    *,
    batch_size: int = 1,
    in_chans: int | None = None,
    dtype: torch.dtype | None = None,
    train: bool = False,
    optimizer: str = "momentum",
) -> Sheet:
    """Sizes a network: runs its own forward on tensors that have a shape and no storage.

    The network is left as it was, on whichever device (meta included) and in whichever mode.

    Args:
        net: any module.
        input_size: height and width in px; or a shape without the batch, such as (3, 224, 224); or a list of
            such shapes for several inputs; or example tensors (batch included), whose values are never read.
            A mapping names the inputs; among several, None, lists and mappings are passed on as they are.
        batch_size: B, for shapes; example tensors bring their own.
        in_chans: C, where `input_size` is a number; default: what the network's first convolution takes.
        dtype: of parameters, inputs and activations; default: that of the parameters.
        train: run in training mode (dropout, batch statistics); default: eval.
        optimizer: for `training_bytes`: sgd, momentum, rmsprop, adam or adamw.

    Returns:
        The sheet, with a row per operation.

    Raises:
        TypeError: if `net` is no module or `input_size` no size.
        SizingError: if the input does not fit; names the layer and the smallest input that works.
        DataDependentError: if the forward reads values.
    """
    if not isinstance(net, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`net`={type(net).__name__}; expected a torch.nn.Module")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"`optimizer`={optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")
    if batch_size < 1:
        raise ValueError(f"`batch_size`={batch_size}; expected at least 1")
    net = getattr(net, "_orig_mod", net)
    if isinstance(net, torch.jit.ScriptModule):
        raise TypeError(
            "`net` is a ScriptModule, whose forward is not Python; size the module it was made from"
        )
    cast = dtype is not None
    if dtype is None:
        dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.get_default_dtype())
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    if _is_nested(input_size):
        shapes, dtypes, arguments = _nested(input_size, batch_size, dtype)
    else:
        shapes, dtypes = _inputs(net, input_size, batch_size, in_chans, dtype)
    request = Request(net, shapes, dtypes, dtype, train, optimizer, cast, arguments)
    try:
        return Sheet(trace(request), request)
    except DataDependentError:
        raise
    except SizingError as error:
        smallest = _smallest_that_works(request)
        # Networks that check their input say it too; once is enough.
        message = _SAID.sub("", str(error)) if smallest else str(error)
        raise type(error)(f"{message}{smallest}") from error


def _inputs(
    net: nn.Module, given: Any, batch: int, in_chans: int | None, dtype: torch.dtype
) -> tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...]]:
    if isinstance(given, torch.Tensor):
        given = [given]
    if isinstance(given, int) and not isinstance(given, bool):
        axes, chans = _first_conv(net)
        given = [(in_chans or chans, *(given,) * axes)]
    elif isinstance(given, Sequence) and given and all(isinstance(s, int) for s in given):
        given = [tuple(given)]
    if not isinstance(given, Sequence) or not given or isinstance(given, str):
        raise TypeError(
            f"`input_size`={given!r}; expected px, a shape such as (3, 224, 224), shapes or tensors"
        )
    shapes: list[tuple[int, ...]] = []
    dtypes: list[torch.dtype] = []
    for item in given:
        if isinstance(item, torch.Tensor):
            shapes.append(tuple(item.shape))
            dtypes.append(dtype if item.is_floating_point() else item.dtype)
        elif isinstance(item, Sequence) and all(isinstance(s, int) for s in item):
            shapes.append((batch, *item))
            dtypes.append(dtype)
        else:
            raise TypeError(
                f"`input_size` holds {item!r}; expected a shape such as (3, 224, 224) or a tensor"
            )
        if any(s < 1 for s in shapes[-1]):
            raise ValueError(f"`input_size`={tuple(shapes[-1])}; every size must be at least 1")
    return tuple(shapes), tuple(dtypes)


def _is_nested(given: Any) -> bool:
    """Whether inputs are named, missing or nested, rather than one after another."""
    if isinstance(given, Mapping):
        return True
    if not isinstance(given, list | tuple):
        return False
    items: Sequence[Any] = given
    return any(item is None or isinstance(item, Mapping) or _holds_tensors(item) for item in items)


def _holds_tensors(item: Any) -> bool:
    return (
        isinstance(item, list | tuple)
        and any(not isinstance(x, int) for x in item)
        and all(x is None or isinstance(x, torch.Tensor | list | tuple | Mapping) for x in item)
    )


def _nested(
    given: Any, batch: int, dtype: torch.dtype
) -> tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...], tuple[tuple[Any, ...], dict[str, Any]]]:
    """Inputs by name (a mapping), or positional ones of which some are None, mappings or lists."""
    shapes: list[tuple[int, ...]] = []
    dtypes: list[torch.dtype] = []

    def placed(item: Any) -> Any:
        if item is None or isinstance(item, bool | str | float):
            return item
        if isinstance(item, Mapping):
            named: Mapping[Any, Any] = item
            return {key: placed(value) for key, value in named.items()}
        whole = isinstance(item, list | tuple) and all(type(x) is int for x in item) and len(item) > 0
        if not whole and isinstance(item, list | tuple):
            return type(item)(placed(x) for x in item)
        if not whole and not isinstance(item, torch.Tensor):
            raise TypeError(f"`input_size` holds {item!r}; expected shapes, tensors, None, lists or mappings")
        if isinstance(item, torch.Tensor):
            shapes.append(tuple(item.shape))
            dtypes.append(dtype if item.is_floating_point() else item.dtype)
        else:
            shapes.append((batch, *item))
            dtypes.append(dtype)
        return Input(len(shapes) - 1)

    named = isinstance(given, Mapping)
    arguments = ((), placed(given)) if named else (tuple(placed(item) for item in given), {})
    if not shapes:
        raise TypeError("`input_size` holds no shape and no tensor; expected at least one")
    return tuple(shapes), tuple(dtypes), arguments


def _first_conv(net: nn.Module) -> tuple[int, int]:
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return len(module.kernel_size), module.in_channels or 3
    return 2, 3


def _smallest_that_works(request: Request) -> str:
    smallest = min_input_size(request, _PATIENCE)
    if smallest is None:
        return ""
    shape = request.shapes[0]
    best = (*shape[1:2], *(smallest,) * (len(shape) - 2))
    return f"; the smallest input that works is {best}"
