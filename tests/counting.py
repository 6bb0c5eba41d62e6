"""Multiply-adds counted independently of torch's own counter, whose table differs from version to version."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convatlas import create_model


class MacCounter(TorchDispatchMode):
    """Counts multiply-adds of convolutions, matrix products and attention, from the shapes of each call.

    A product of (M, K) with (K, N) is M K N; a convolution is that of each output position with its kernel;
    attention of L queries on S keys, E and V wide, is L S (E + V) for each head.

    Attributes:
        macs: counted so far.
        by_module: of each module's own calls, those of its children included, by its path.
    """

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.macs = 0
        self.by_module: dict[str, int] = {}
        self._net, self._hooks = net, []

    def __enter__(self) -> Self:
        for path, module in () if self._net is None else self._net.named_modules():
            began: list[int] = []
            self._hooks.append(module.register_forward_pre_hook(lambda *_, b=began: b.append(self.macs)))
            self._hooks.append(module.register_forward_hook(lambda *_, b=began, p=path: self._end(p, b)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def _end(self, path: str, began: list[int]) -> None:
        self.by_module[path] = self.by_module.get(path, 0) + self.macs - began.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.macs += _macs(
            func.overloadpacket.__name__, [a for a in args if isinstance(a, Tensor)], args, out
        )
        return out


def _macs(op: str, tensors: list[Tensor], args: Any, out: Any) -> int:
    if op == "convolution":
        image, weight, transposed = tensors[0], tensors[1], args[6]
        positions = math.prod((image if transposed else out).shape[2:]) * image.shape[0]
        return positions * weight.numel()
    if op in ("mm", "bmm", "addmm", "baddbmm"):
        return out.numel() * tensors[-2].shape[-1]
    if op.startswith("_scaled_dot_product"):
        query, key, value = tensors[:3]
        return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return 0


def meta_model(name: str, **options: Any) -> nn.Module:
    """A network of ours without storage."""
    with torch.device("meta"):
        return create_model(name, **options)


def count_macs(net: nn.Module, size: int | tuple[int, ...] = 224, chans: int = 3) -> int:
    """Multiply-adds of one image of `size` px a side, or of that shape."""
    shape = (chans, size, size) if isinstance(size, int) else size
    with MacCounter() as counter, torch.no_grad():
        net(torch.empty(1, *shape, device="meta"))
    return counter.macs
