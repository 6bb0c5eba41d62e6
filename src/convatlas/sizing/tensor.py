"""The tensor without storage that runs through a network's own forward."""

# Its methods are those of torch.Tensor, which documents them.
# ruff: noqa: D102

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from sys import getrefcount
from typing import Any, Protocol
from weakref import getweakrefcount

import torch

from . import strides
from .errors import DataDependentError

# Every traced tensor is a view of this one; its own (empty) shape is never seen.
_EMPTY = torch.empty(0, device="meta")
_make_subclass = torch.Tensor._make_subclass

# Rules by function, and by the qualified name of an operator of a package that may not be there.
RULES: dict[Any, Callable[..., Any]] = {}
FOREIGN: dict[str, Callable[..., Any]] = {}


def rule_of(func: Any) -> Callable[..., Any] | None:
    """The rule for an operator of another package."""
    packet = getattr(func, "_overloadpacket", func)
    return FOREIGN.get(getattr(packet, "_qualified_op_name", ""))


class Recorder(Protocol):
    """What records the operations on traced tensors."""

    device: torch.device

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records an operation and returns its result."""

    def needs_grad(self, node: int | None) -> bool:
        """Whether a row's output depends on what learns."""
        ...


class Traced(torch.Tensor):
    """A shape, a dtype and a place in the graph, in the clothes of a tensor.

    Shape and dtype are answered here, in Python; operations are intercepted at `__torch_function__`, before
    PyTorch's dispatcher, and looked up in `RULES`.

    Attributes:
        node: index of the row that made it; -1 - i for the network's i-th input; None for a parameter.
        slot: which output of that row it is.
        key: of its storage, which views share; None for a parameter.
        store: token whose life is the life of the storage, where lives are watched; else None.
        source: the parameter or buffer that it stands for, or None.
        strides: None where the elements lie in order.
    """

    __slots__ = ("dtype", "key", "node", "shape", "slot", "source", "store", "strides", "tracer")

    tracer: Recorder
    node: int | None
    slot: int
    key: Any
    store: Any
    source: torch.Tensor | None
    strides: tuple[int, ...] | None

    # Answered by slots and methods below instead of the base class's getters.
    layout = torch.strided  # type: ignore[assignment]
    is_meta = False  # type: ignore[assignment]
    is_cpu = True  # type: ignore[assignment]
    is_sparse = False  # type: ignore[assignment]
    is_quantized = False  # type: ignore[assignment]
    is_nested = False  # type: ignore[assignment]
    is_mkldnn = False  # type: ignore[assignment]
    grad_fn = None  # type: ignore[assignment]
    is_leaf = False  # type: ignore[assignment]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tracer = args[0].tracer if args and type(args[0]) is Traced else _tracer_of(args, kwargs)
        return tracer.call(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.tracer.device

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self.shape)

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.device.type == "cuda"

    @property
    def requires_grad(self) -> bool:  # type: ignore[override]
        if self.source is not None:
            return self.source.requires_grad
        return self.tracer.needs_grad(self.node)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None: ...

    @property
    def itemsize(self) -> int:  # type: ignore[override]
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.numel() * self.dtype.itemsize

    def dim(self) -> int:
        return len(self.shape)

    ndimension = dim

    def size(self, dim: int | None = None) -> Any:  # type: ignore[override]
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return self.shape.numel()

    nelement = numel

    def stride(self, dim: Any = None) -> Any:  # type: ignore[override]
        steps = strides_of(self)
        return steps if dim is None else steps[dim]

    def element_size(self) -> int:
        return self.dtype.itemsize

    def is_contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> bool:
        if memory_format in (torch.channels_last, torch.channels_last_3d):
            order = (0, *range(2, len(self.shape)), 1)
            steps = strides_of(self)
            shape = tuple(self.shape[d] for d in order)
            return strides.known(shape, tuple(steps[d] for d in order)) is None
        return self.strides is None

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        return self.dtype.is_complex

    def get_device(self) -> int:
        return -1 if self.device.index is None else self.device.index  # pyright: ignore

    def storage_offset(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return 0

    def requires_grad_(self, mode: bool = True) -> Traced:
        return self

    def register_hook(self, hook: Any) -> None:
        return None

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.unbind(0))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self, *args: Any, **kwargs: Any) -> str:
        return f"Traced({tuple(self.shape)}, {self.dtype})"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __deepcopy__(self, memo: Any) -> Traced:
        return self.clone()  # type: ignore[return-value]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a traced tensor has no storage to pickle")


def strides_of(x: Traced) -> tuple[int, ...]:
    """Strides of a traced tensor."""
    return strides.dense(x.shape) if x.strides is None else x.strides


def _tracer_of(args: Any, kwargs: Any) -> Recorder:
    found = find_traced(args)
    if found is None:
        found = find_traced(kwargs)
    assert found is not None  # PyTorch calls us because an argument is one of ours.
    return found.tracer


def find_traced(tree: Any) -> Traced | None:
    """The first traced tensor in nested tuples, lists and dicts."""
    if type(tree) is Traced:
        return tree
    if isinstance(tree, tuple | list):
        items: Any = tree
    elif isinstance(tree, dict):
        items = tree.values()
    elif isinstance(tree, slice):
        items = (tree.start, tree.stop, tree.step)
    else:
        return None
    for item in items:
        found = find_traced(item)
        if found is not None:
            return found
    return None


def user_line() -> str:
    """File and line of the innermost frame outside PyTorch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        module = frame.f_globals.get("__name__", "")
        if (
            not module.startswith("torch.")
            and module != "torch"
            and not module.startswith("convatlas.sizing")
        ):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown line"


def _reads_values(name: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        source = self.source
        if source is not None and not source.is_meta:
            return getattr(source.detach(), name)(*args, **kwargs)
        raise DataDependentError(
            f"the forward reads a tensor's value through `{name}` at {user_line()}: sizing has shapes only, "
            f"so control flow that depends on data cannot be followed (shape {tuple(self.shape)})"
        )

    method.__name__ = name
    return method


for _name in (
    "item tolist numpy __array__ __bool__ __int__ __float__ __index__ __complex__ __contains__ "
    "is_nonzero equal allclose"
).split():
    setattr(Traced, _name, _reads_values(_name))


# Traced tensors of earlier traces that nothing holds any more: to make one costs as much as all the rest of
# recording an operation.
_SPARE: list[Traced] = []
_MOST_SPARE = 4096


def make_traced(
    tracer: Recorder, shape: torch.Size, dtype: torch.dtype, node: int | None, key: Any, store: Any
) -> Traced:
    """A traced tensor."""
    out: Traced = _SPARE.pop() if _SPARE else _make_subclass(Traced, _EMPTY)  # type: ignore[assignment]
    out.shape = shape
    out.dtype = dtype
    out.tracer = tracer
    out.node = node
    out.slot = 0
    out.key = key
    out.store = store
    out.source = None
    out.strides = None
    return out


def spare(made: list[Traced]) -> None:
    """Keeps for later what the rows of a trace have made, but for tensors held elsewhere or marked."""
    for x in made[: _MOST_SPARE - len(_SPARE)]:
        # Held by the list, its slice, the loop and the call.
        if getrefcount(x) == 4 and not x.__dict__ and not getweakrefcount(x):
            x.tracer = None  # type: ignore[assignment]
            _SPARE.append(x)
