"""Operations without a rule: PyTorch's meta device says their shape.

Where an operation has no meta kernel, fake tensors run its kernel on made-up values. Multiply-adds are
counted by PyTorch's own formulas, operator by operator; an operator without a formula that may multiply
matrices leaves them unknown, and the row says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from . import strides
from .errors import DataDependentError, ShapeError
from .geometry import EVERYTHING
from .tensor import Traced, user_line

# Exceptions of PyTorch which say that a shape or a branch depends on values.
_BY_DATA = ("DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode")

# Operators of PyTorch that multiply no matrices: they move, reduce, compare, draw or fill, or work per
# element, per window or per normalised group.
_FREE = re.compile(
    r"""_?(unsafe_|to_|foreach_|fused_dropout|native_(batch|layer|group|dropout)|cdist|pdist|log_?softmax
    |softmax|safe_softmax|adaptive|embedding|index|masked|resize|local_scalar|weight_norm|segment_reduce
    |fft|conj|neg_view|upsample|cudnn_batch|thnn_fused|pack_padded|pad_packed|pad_enum|reshape|assert|has_
    |unique|nested|sparse|ctc_loss|chunk_cat|stack|linalg_vector|aminmax|cum|logcumsumexp|unfold|fold|slice)
    |(abs|all|any|amax|amin|arange|arg|as_strided|avg_pool|batch_norm|bernoulli|binary_cross|bincount|block
    |broadcast|bucketize|cat|cauchy|celu|channel_shuffle|chunk|clamp|clone|col2im|im2col|complex|constant
    |contiguous|copy|cosine_similarity|count|cross$|deg2rad|detach|diag|diff|digamma|dist$|elu|empty|equal|exp
    |eye|fill|flip|fmod|fractional|frexp|full|gather|gcd|ge|glu|grid_sampler|group_norm|hardtanh|heaviside|hist|huber
    |i0|instance|is|item|kl_div|kthvalue|layer_norm|lcm|lerp|lift|lin(space)|linalg_(norm|vector_norm|cross|diagonal)
    |log|max|mean|median|min|mode|mse_loss|multi(label_)?margin|multinomial|nan|narrow|new_|nll_loss|nonzero
    |norm|normal|one|pad|permute|pixel|poisson|polar|prod|put|rand|reflection|renorm|repeat|replication|resize|rms
    |roll|rot90|round|rrelu|scalar|scatter|searchsorted|select|set_|slice|smooth_l1|soft|sort|split|squeeze|stack
    |std|sum|swap|t$|take|tensor_split|tile|topk|trace|transpose|tri|unbind|unflatten|unfold|uniform|unique
    |unsqueeze|upsample|var|view|where|zero|squeeze|expand|alias|bitwise|logical|trapezoid|vander)
    """.replace(" ", "").replace("\n", "")
)


def _product(left: torch.Tensor, right: torch.Tensor) -> int:
    """Multiply-adds of a product; each element of the left side meets a row of the right one."""
    return left.numel() * (right.shape[-1] if right.dim() > 1 else 1)


# Products that PyTorch's formulas leave out: which of their arguments are multiplied.
_PRODUCTS = {"mv": (0, 1), "dot": (0, 1), "vdot": (0, 1), "addmv": (1, 2), "addbmm": (1, 2)}


class _Counter(TorchDispatchMode):
    """Multiply-adds of all operators that run below it.

    Attributes:
        macs: of the operators with a formula.
        unknown: whether there were others that may have multiply-adds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.unknown = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils.flop_counter import flop_registry

        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = _not_in_place(func)
        name = packet.__name__
        formula: Any = flop_registry.get(packet)
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=out) // 2
        elif name in _PRODUCTS:
            self.macs += _product(*(args[i] for i in _PRODUCTS[name]))
        elif func.namespace not in ("aten", "prims") or not _is_free(name, packet):
            self.unknown = True
        return out


def _not_in_place(func: Any) -> Any:
    """All overloads of an operator; of one that works in place, those of its twin that does not."""
    packet = func._overloadpacket
    name: str = packet.__name__
    if func.namespace == "aten" and name.endswith("_") and not name.endswith("__"):
        return getattr(torch.ops.aten, name[:-1], packet)
    return packet


def _is_free(name: str, packet: Any) -> bool:
    tags = getattr(packet, packet.overloads()[0]).tags
    return torch.Tag.pointwise in tags or _FREE.match(name) is not None


def name_of(func: Any) -> str:
    """A readable name of a function, an operator or an attribute."""
    func = getattr(func, "_overloadpacket", func)
    name = getattr(func, "__name__", None) or str(func)
    if name in ("__get__", "__set__"):
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return name.removesuffix("_") if name.endswith("_") and not name.endswith("__") else name


def shapes_of(*trees: Any) -> str:
    """Shapes of the tensors among some arguments, for a message."""
    tensors = [x for x in tree_leaves(trees) if isinstance(x, torch.Tensor)]
    return " and ".join(str(tuple(x.shape)) for x in tensors) or "no tensor"


def call(tracer: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs `func` on tensors without values and records it as one row.

    Raises:
        DataDependentError: if the result's shape depends on values.
        ShapeError: if the operation does not take these shapes, or PyTorch cannot tell its result's shape.
    """
    try:
        return _on_meta(tracer, func, args, kwargs)
    except Exception as error:
        name, shapes = name_of(func), shapes_of(args, kwargs)
        if type(error).__name__ in _BY_DATA:
            raise _depends_on_values(name) from error
        if not isinstance(error, NotImplementedError) and "meta" not in str(error):
            raise ShapeError(f"{name} on {shapes}: {_first_line(error)}") from error
    try:
        return _on_fake(tracer, func, args, kwargs)
    except Exception as error:
        if type(error).__name__ in _BY_DATA:
            raise _depends_on_values(name) from error
        raise ShapeError(
            f"{name} on {shapes}: PyTorch cannot tell the shape of its result without values "
            f"({_first_line(error)})"
        ) from error


def _depends_on_values(name: str) -> DataDependentError:
    return DataDependentError(
        f"the forward asks {name} at {user_line()} for what depends on values; sizing has shapes only"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _on_meta(tracer: Any, func: Any, args: Any, kwargs: Any) -> Any:
    def twin(x: torch.Tensor) -> torch.Tensor:
        return torch.empty(x.shape, dtype=tracer.dtype_of(x), device="meta")

    return _run(tracer, func, args, kwargs, twin, torch.device("meta"))


def _on_fake(tracer: Any, func: Any, args: Any, kwargs: Any) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = torch.device("cpu")

    def twin(x: torch.Tensor) -> torch.Tensor:
        if type(x) is not Traced and not x.is_meta and not x.is_floating_point():
            # Its values are known.
            return x
        return torch.empty(x.shape, dtype=tracer.dtype_of(x), device=device)

    with FakeTensorMode(allow_non_fake_inputs=True):
        return _run(tracer, func, args, kwargs, twin, device)


def _run(
    tracer: Any,
    func: Any,
    args: Any,
    kwargs: Any,
    make_twin: Callable[[Any], torch.Tensor],
    device: torch.device,
) -> Any:
    """Runs `func` on twins of the tensors among its arguments, and records it."""
    twins: dict[int, torch.Tensor] = {}
    originals: dict[int, torch.Tensor] = {}
    storages: dict[int, torch.Tensor] = {}

    def to_twin(x: Any) -> Any:
        if isinstance(x, torch.device):
            return device
        if not isinstance(x, torch.Tensor):
            return x
        twin = twins.get(id(x))
        if twin is None:
            twin = twins[id(x)] = make_twin(x)
            originals[id(twin)] = x
            storages[twin.untyped_storage()._cdata] = x
        return twin

    twin_args, twin_kwargs = tree_map(to_twin, (args, kwargs))
    tracer.suspended = True
    try:
        with torch.no_grad(), _Counter() as counter, _Twins(to_twin):
            result = func(*twin_args, **twin_kwargs)
    finally:
        tracer.suspended = False
    # Tensors that the function reads without having been given them count as its inputs too.
    return _record(tracer, name_of(func), tuple(originals.values()), result, counter, originals, storages)


class _Twins(TorchFunctionMode):
    """Puts the twin in place of every tensor that a function reads from outside, such as a parameter."""

    def __init__(self, to_twin: Callable[[Any], Any]) -> None:
        super().__init__()
        self.to_twin = to_twin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (args, kwargs or {})
        if any(_is_outside(x) for x in tree_leaves(given)):
            given = tree_map(self._twin, given)
        return func(*given[0], **given[1])

    def _twin(self, x: Any) -> Any:
        return self.to_twin(x) if _is_outside(x) else x


def _is_outside(x: Any) -> bool:
    return type(x) is Traced or isinstance(x, torch.nn.Parameter)


def _record(
    tracer: Any,
    name: str,
    inputs: tuple[Any, ...],
    result: Any,
    counter: _Counter,
    originals: dict[int, Any],
    storages: dict[int, Any],
) -> Any:
    first: Traced | None = None
    macs = counter.macs

    def to_traced(x: Any) -> Any:
        nonlocal first
        if not isinstance(x, torch.Tensor):
            return x
        original = originals.get(id(x))
        if original is not None and type(original) is not Traced:
            # A tensor from outside that the operation wrote to.
            return original
        shared = storages.get(x.untyped_storage()._cdata) if original is None else None
        view = shared if type(shared) is Traced and shared.node is not None else None
        if first is not None:
            return original if original is not None else tracer.more(first, x.shape, x.dtype, shares=view)
        kind = "view" if view is not None and not macs else "matmul" if macs else "other"
        moves = kind == "view"
        made = tracer.emit(
            name, kind, inputs, x.shape, x.dtype, macs=macs, flops=2 * macs, geometry=EVERYTHING,
            counted=moves, macs_counted=moves or not counter.unknown, out=original, view=view,
        )  # fmt: skip
        made.shape = x.shape
        made.strides = strides.known(x.shape, x.stride()) if _is_strided(x) else None
        first = made
        return made

    return tree_map(to_traced, result)


def _is_strided(x: torch.Tensor) -> bool:
    return x.layout is torch.strided
