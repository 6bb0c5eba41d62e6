"""Every operator that has a rule, on PyTorch's own samples, in every form of call, against a real forward."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from convatlas.sizing import DataDependentError, ShapeError, size
from convatlas.sizing.arguments import signatures
from convatlas.sizing.fallback import name_of
from convatlas.sizing.tensor import RULES
from convatlas.sizing.tracer import Tracer

pytest.importorskip("expecttest", reason="PyTorch's operator samples need it")
with pytest.MonkeyPatch.context() as patch:
    # Its import sets environment variables for its own test runs.
    patch.setenv("PYTORCH_TEST_WITH_SLOW", "0")
    from torch.testing._internal.common_methods_invocations import op_db

Call = tuple[tuple[Any, ...], dict[str, Any]]
DTYPES = {torch.float32: 12, torch.int64: 4, torch.bool: 3, torch.bfloat16: 3}
"""Samples for each dtype, spread evenly over those that PyTorch has."""

# CPU's in-place kernel takes targets that do not broadcast, which the meta kernel refuses.
LOOSE = {"addbmm"}


def forms(op: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    found = {"function": op.op, "method": op.method_variant, "in place": op.inplace_variant,
             "operator": op.operator_variant, "operator in place": op.inplace_operator_variant}  # fmt: skip
    yield from ((name, form) for name, form in found.items() if form is not None)


RULED = [op for op in op_db if any(form in RULES for _, form in forms(op)) or op.op is nn.functional.unfold]


def test_most_rules_are_reached() -> None:
    names = {op.name.removeprefix("nn.functional.") for op in RULED}
    assert len(names) > 200
    assert {"conv2d", "max_pool2d", "cat", "matmul", "interpolate", "std", "tensor_split"} <= names


def by_keyword(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Call]:
    """The same call with all arguments but the first by name, for every overload's names."""
    try:
        known = inspect.signature(function).parameters.values()
        names = [[p.name for p in known if p.kind is p.POSITIONAL_OR_KEYWORD]]
    except (TypeError, ValueError):
        names = [[a[0] for a in found if not a[1]] for found in signatures(name_of(function))]
    for found in names:
        if 1 < len(args) <= len(found):
            yield args[:1], dict(zip(found[1:], args[1:], strict=False)) | kwargs


def described(tree: Any) -> list[Any]:
    return [(tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in tree_leaves(tree)]


def real(function: Callable[..., Any], call: Call) -> tuple[list[Any], int] | None:
    """Shapes, dtypes and multiply-adds of a real call; None if there is no such call."""
    args, kwargs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, call)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            return described(function(*args, **kwargs)), counter.get_total_flops() // 2
    except Exception:
        return None


def traced(function: Callable[..., Any], call: Call) -> tuple[list[Any], int, bool]:
    tracer = Tracer(torch.float32, torch.device("cpu"))
    count = itertools.count()
    args, kwargs = tree_map(
        lambda x: tracer.input(next(count), tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x, call
    )
    found = described(function(*args, **kwargs))
    return found, sum(row.macs for row in tracer.rows), all(row.macs_counted for row in tracer.rows)


def product_macs(name: str, call: Call) -> int | None:
    """Multiply-adds of the products that PyTorch's counter leaves out."""
    tensors = [x for x in tree_leaves(call) if isinstance(x, Tensor)]
    if name in ("mv", "dot", "vdot"):
        return tensors[0].numel()
    if name == "addmv":
        return tensors[1].numel()
    if name.startswith(("addmm", "addbmm", "baddbmm")):
        return tensors[1].numel() * tensors[2].shape[-1]
    if name == "nn.functional.bilinear":
        outputs = tensors[0][..., 0].numel() * tensors[2].shape[0]
        return outputs * tensors[2].shape[2] * (tensors[2].shape[1] + 1)
    if name in ("matmul", "__rmatmul__", "inner") and min(x.dim() for x in tensors[:2]) < 2:
        left, right = tensors[:2] if name != "__rmatmul__" else tensors[1::-1]
        if name == "inner":
            return left.numel() * right[..., 0].numel() if left.dim() and right.dim() else 0
        return left.numel() if right.dim() == 1 else left.numel() * right.numel() // right.shape[-2]
    return None


def thinned(samples: list[Any], most: int) -> list[Any]:
    return samples[:: -(-len(samples) // most) or 1]


@pytest.mark.parametrize("op", RULED, ids=[op.formatted_name for op in RULED])
def test_shape_dtype_and_macs(op: Any) -> None:
    torch.manual_seed(0)
    for dtype, most in DTYPES.items():
        if dtype not in op.dtypes:
            continue
        samples = list(op.sample_inputs("cpu", dtype, requires_grad=False))
        for sample, (form, function) in itertools.product(thinned(samples, most), forms(op)):
            given = (sample.input, *sample.args), sample.kwargs
            calls = [given, *(by_keyword(function, *given) if form == "function" else ())]
            for call in calls:
                check(op.name, form, function, call)


def check(name: str, form: str, function: Callable[..., Any], call: Call) -> None:
    expected = real(function, call)
    if expected is None or (name in LOOSE and "in place" in form):
        return
    try:
        found, macs, counted = traced(function, call)
    except (DataDependentError, TypeError):
        # A number that is a tensor of the graph is not known.
        return
    where = f"{form} {[*map(described, call)]}"
    assert found == expected[0], where
    if counted:
        own = product_macs(name, call)
        assert macs == (expected[1] if own is None else own), where


class Calls(nn.Module):
    def __init__(self, do: Callable[..., Any]) -> None:
        super().__init__()
        self.do = do
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.matrix = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Tensor) -> Any:
        return self.do(self, x)


FORMS = [
    pytest.param(lambda m, x: nn.functional.conv2d(input=x, weight=m.weight), 36 * 4 * 27, id="conv2d"),
    pytest.param(lambda m, x: torch.mm(x[0, 0], mat2=m.matrix), 8 * 8 * 5, id="mm"),
    pytest.param(lambda m, x: torch.max(x, other=x + 1), 0, id="max of two"),
    pytest.param(lambda m, x: torch.split(tensor=x, split_size_or_sections=2), 0, id="split"),
    pytest.param(lambda m, x: nn.functional.interpolate(x, scale_factor=torch.ones(1).numpy()[0] * 2), 0,
                 id="numpy factor"),
    pytest.param(lambda m, x: x.tensor_split(4, 1), 0, id="tensor_split"),
    pytest.param(lambda m, x: x.std(1, True), 0, id="std"),
    pytest.param(lambda m, x: torch.cat([x.half(), x]), 0, id="cat of two dtypes"),
    pytest.param(lambda m, x: x.clone().resize_(2, 3), 0, id="resize_"),
    pytest.param(lambda m, x: torch.add(x, 1, out=x.new_empty(0)), 0, id="out"),
    pytest.param(lambda m, x: torch.max(x, 1, out=(x.new_empty(0), torch.empty_like(x).long()[:0])), 0,
                 id="two outs"),
    pytest.param(lambda m, x: torch.vmap(lambda row: row.sum(0))(x), 0, id="vmap"),
    pytest.param(lambda m, x: torch.vmap(lambda a: a @ m.matrix)(x[0]), 3 * 8 * 8 * 5, id="vmap of product"),
    pytest.param(lambda m, x: x.clone().squeeze_(0).unsqueeze_(1).transpose_(0, 2), 0, id="views in place"),
]  # fmt: skip


@pytest.mark.parametrize(("do", "macs"), FORMS)
def test_forms_that_users_write(do: Callable[..., Any], macs: int) -> None:
    net = Calls(do)
    expected = net(torch.randn(1, 3, 8, 8))
    sheet = size(net, (3, 8, 8))
    assert sheet.output == tree_map(lambda x: tuple(x.shape), expected)
    assert sheet.macs == macs
    first = next(x for x in tree_leaves(expected) if isinstance(x, Tensor))
    assert sheet.rows[sheet.trace.outputs[0]].dtype == first.dtype


class Deformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import DeformConv2d

        self.offset = nn.Conv2d(3, 18, 3, padding=1)
        self.conv = DeformConv2d(3, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offset(x))


def test_deformable_convolution() -> None:
    sheet = size(Deformed(), (3, 32, 32))
    assert sheet.macs == 32 * 32 * 27 * (18 + 64)
    assert sheet.params == 27 * (18 + 64) + 18 + 64
    assert sheet.output == (1, 64, 32, 32)


def test_bilinear_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Bilinear(20, 20, 40)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, x)

    # For each output, 20 columns of 20 products, and a product with the second input.
    assert size(Net(), (20,), batch_size=8).macs == 8 * 40 * (20 * 20 + 20)


@functools.cache
def custom_operator() -> Any:
    @torch.library.custom_op("convatlas_test::mix", mutates_args=())
    def mix(x: Tensor) -> Tensor:
        return x.clone()

    mix.register_fake(lambda x: torch.empty_like(x))
    return mix


def test_what_nobody_counts_is_said() -> None:
    mix = custom_operator()
    sheet = size(Calls(lambda m, x: mix(torch.linalg.inv(x))), (3, 8, 8))
    assert [row.macs_counted for row in sheet.rows] == [False, False]
    from convatlas.sizing import to_json, to_text

    text = to_text(sheet, layers=True)
    assert "linalg_inv (not counted)" in text
    assert "MACs and FLOPs of linalg_inv, mix" in " ".join(text.split())
    assert "exact" not in text
    assert '"macs": null' in to_json(sheet)


def test_misfit_of_a_rule_is_told_in_its_own_words() -> None:
    with pytest.raises(ShapeError, match=r"conv2d: expects 3 channels, got 5"):
        size(Calls(lambda m, x: nn.functional.conv2d(input=x, weight=m.weight)), (5, 8, 8))
