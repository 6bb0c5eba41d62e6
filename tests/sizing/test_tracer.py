"""Unmodified modules of every habit run through the tracer, and come out as they went in."""

import copy
import threading
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convatlas.sizing import DataDependentError, ShapeError, SizingError, size
from convatlas.sizing.tracing import trace
from counting import MacCounter


class Habit(nn.Module):
    """A forward given as a function of the module's conv, linear and input."""

    def __init__(self, do: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(8, 8))
        self.register_buffer("table", torch.randn(16, 8))
        self.register_buffer("index", torch.arange(64).reshape(8, 8) % 16)
        self.do = do

    def forward(self, x: Tensor) -> object:
        return self.do(self, x)


def isinstance_check(m: Habit, x: Tensor) -> Tensor:
    if not isinstance(x, torch.Tensor) or x.dtype != torch.float32 or not x.is_floating_point():
        raise TypeError("not a tensor")
    return m.conv(x)


def in_place(m: Habit, x: Tensor) -> Tensor:
    y = m.conv(x)
    y += 1
    y.mul_(2).relu_()
    y[:, :4] = 0
    return F.relu(y, inplace=True)


def slices(m: Habit, x: Tensor) -> Tensor:
    y = m.conv(x)
    a, b = y.chunk(2, 1)
    c, d, e = y.split([2, 2, 4], dim=1)
    return (
        torch.cat([a[..., ::2, 1:9], b[:, :, 8:, None, 0:8].squeeze(3)], 1)
        + c.mean()
        + d.sum()
        + e[0, 0, 0, 0]
    )


def attend(m: Habit, x: Tensor) -> Tensor:
    y = m.conv(x).flatten(2).transpose(1, 2)
    q, k, v = (m.fc(y).reshape(y.shape[0], -1, 2, 4).transpose(1, 2) for _ in range(3))
    z = F.scaled_dot_product_attention(q, k, v)
    w = (q @ k.transpose(-2, -1)).softmax(-1) @ v
    return torch.einsum("bhnc,bhmc->bhnm", z, w)


def param_arithmetic(m: Habit, x: Tensor) -> Tensor:
    weight = m.scale @ m.scale.t() / m.scale.norm()
    bias = (m.table @ weight)[m.index.view(-1)].view(8, 8, -1)
    return F.linear(m.conv(x).permute(0, 2, 3, 1), weight) + bias.sum()


def created(m: Habit, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).float()
    y = (
        m.conv(x)
        + grid.sum(0)
        + torch.linspace(0, 1, w)
        + x.new_zeros(b, 1, h, w)
        + torch.zeros_like(x[:, :1])
    )
    return y.masked_fill(torch.ones(h, w).tril().bool(), 0.0)


def tokens(m: Habit, x: Tensor) -> Tensor:
    y = m.conv(x)
    b, c, h, w = y.shape
    y = y.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
    y = m.fc(y) + m.table
    patches = F.unfold(x, 2, stride=2)
    return torch.cat([y.flatten(), patches.flatten()])


HABITS = [isinstance_check, in_place, slices, attend, param_arithmetic, created, tokens]


@pytest.mark.parametrize("do", HABITS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shapes_and_macs(do: object, device: str) -> None:
    net = Habit(do)
    with MacCounter() as counter:
        expected = net(torch.randn(2, 3, 16, 16))
    sheet = size(net.to(device) if device == "meta" and do is not created else net, (3, 16, 16), batch_size=2)
    assert sheet.output == tuple(expected.shape)
    assert sheet.macs == counter.macs


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_attention_module(train: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.cross = nn.MultiheadAttention(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return self.cross(y, x, x)[0]

    net = Net().train(train)
    with MacCounter() as counter:
        net(torch.randn(2, 10, 32))
    sheet = size(net, (10, 32), batch_size=2, train=train)
    assert sheet.macs == counter.macs
    assert sheet.output == (2, 10, 32)


def test_recurrent_layer_falls_back_to_meta() -> None:
    net = nn.LSTM(8, 16, batch_first=True)
    sheet = size(net, (5, 8), batch_size=3)
    assert sheet.output[0] == (3, 5, 16)
    assert sheet.macs == 3 * 5 * 4 * 16 * (8 + 16)
    assert [row.op for row in sheet.not_counted] == ["lstm"]


def test_several_inputs_and_dict_output() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, object]:
            return {"sum": x + y, "parts": (x, [y])}

    sheet = size(Pair(), [(3, 4), (1, 4)])
    assert sheet.output == {"sum": (1, 3, 4), "parts": ((1, 3, 4), [(1, 1, 4)])}
    assert sheet.rows[0].inputs == (-1, -2)


def test_example_tensors_of_integers() -> None:
    net = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 2))
    sheet = size(net, torch.zeros(4, 7, dtype=torch.int64))
    assert sheet.output == (4, 7, 2)
    assert sheet.rows[-1].dtype == torch.float32


def test_module_used_twice_counts_once_in_params() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    sheet = size(nn.Sequential(conv, nn.ReLU(), conv), 8)
    assert sheet.params == 3 * 3 * 9 + 3
    assert sum(row.params for row in sheet.rows) == sheet.params
    assert [row.macs for row in sheet.rows] == [64 * 81, 0, 64 * 81]


def test_checkpointed_forward() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.conv, x, use_reentrant=False)

    assert size(Net(), 8).output == (1, 4, 6, 6)


def test_leaves_the_network_as_it_was() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
            self.last: object = None
            self.register_buffer("mean", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.body(x)
            self.mean = self.last.mean()
            self.mean.add_(1)
            return self.last

    net = Remembers()
    net.body[2].eval()
    before = copy.deepcopy(net.state_dict())
    keys = [sorted(m.__dict__) for m in net.modules()]
    size(net, 8, train=True)
    with pytest.raises(SizingError):
        size(net, (5, 8, 8))
    assert net.last is None
    assert [sorted(m.__dict__) for m in net.modules()] == keys
    assert [m.training for m in net.modules()] == [True, True, True, True, False]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 4, 6, 6)


def test_other_threads_run_the_network_meanwhile() -> None:
    outputs: list[Tensor] = []

    class Meets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not outputs and type(x) is not Tensor:
                thread = threading.Thread(target=lambda: outputs.append(self.conv(torch.ones(1, 3, 8, 8))))
                thread.start()
                thread.join()
            return self.conv(x)

    assert len(size(Meets(), 8).rows) == 1
    assert outputs[0].shape == (1, 4, 6, 6)


def test_hooks_of_the_user_still_run() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    seen: list[tuple[int, ...]] = []
    net[0].register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape)))
    assert len(size(net, 8).rows) == 2
    assert seen == [(1, 4, 6, 6)]


LEAVES = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
    nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect"), nn.ReLU6(), nn.SiLU(), nn.Hardswish(True),
    nn.Hardsigmoid(), nn.ELU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool2d(2), nn.AdaptiveAvgPool2d((2, 2)), nn.Identity(), nn.Flatten(), nn.Dropout(), nn.Linear(32,
    5),
    nn.LayerNorm(5),
)  # fmt: skip


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_shortcuts_for_modules_equal_their_forward(train: bool) -> None:
    short = size(LEAVES, 32, train=train, batch_size=2)
    long = trace(short.request, use_leaves=False)
    assert short.trace.rows == long.rows


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121"])
def test_shortcut_for_timms_norms_equals_their_forward(name: str) -> None:
    with torch.device("meta"):
        short = size(timm.create_model(name), 64)
    long = trace(short.request, use_leaves=False)
    assert short.trace.rows == long.rows


def test_global_hooks_see_every_module() -> None:
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, o: seen.append(type(m).__name__))
    try:
        size(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 8)
    finally:
        handle.remove()
    assert seen == ["Conv2d", "ReLU", "Sequential"]


def kinds(do: object, *shape: int) -> list[tuple[str, str]]:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return do(x)  # type: ignore[operator]

    return [(row.op, row.kind) for row in size(Net(), shape).rows]


REORDERED = [
    pytest.param(lambda x: x.reshape(1, -1), [("reshape", "view")], id="in order"),
    pytest.param(
        lambda x: x.permute(0, 2, 3, 1).reshape(1, -1),
        [("permute", "view"), ("reshape", "copy")],
        id="out of",
    ),
    pytest.param(
        lambda x: x.transpose(2, 3).flatten(2), [("permute", "view"), ("flatten", "copy")], id="flatten"
    ),
    pytest.param(
        lambda x: x.flatten(2).transpose(1, 2).contiguous().view(1, -1),
        [("flatten", "view"), ("permute", "view"), ("contiguous", "copy"), ("reshape", "view")],
        id="contiguous",
    ),
    pytest.param(
        lambda x: x.transpose(1, 2).relu().reshape(1, -1),
        [("permute", "view"), ("relu", "activation"), ("reshape", "copy")],
        id="arithmetic keeps the order",
    ),
    pytest.param(
        lambda x: x.permute(0, 2, 3, 1).unflatten(-1, (2, 2)).permute(0, 3, 4, 1, 2).reshape(1, 4, 4, 4),
        [("permute", "view"), ("reshape", "view"), ("permute", "view"), ("reshape", "view")],
        id="there and back",
    ),
    pytest.param(lambda x: x[:, :2].reshape(1, -1), [("getitem", "view"), ("reshape", "view")], id="slice"),
    pytest.param(
        lambda x: x[:, :, :2].reshape(1, -1), [("getitem", "view"), ("reshape", "copy")], id="cut rows"
    ),
    pytest.param(
        lambda x: x[:, :, None].expand(-1, -1, 3, -1, -1).reshape(1, -1),
        [("getitem", "view"), ("expand", "view"), ("reshape", "copy")],
        id="repeated",
    ),
]


@pytest.mark.parametrize(("do", "expected"), REORDERED)
def test_reshape_copies_what_does_not_lie_in_order(do: object, expected: object) -> None:
    assert kinds(do, 4, 4, 4) == expected


STRIDED = [
    pytest.param(lambda x: x.permute(0, 2, 3, 1), id="permute"),
    pytest.param(lambda x: x[:, ::2, 1:, -1], id="getitem"),
    pytest.param(lambda x: x.expand(3, 4, 4, 4), id="expand"),
    pytest.param(lambda x: x.mT.unsqueeze(1).squeeze(0), id="squeeze"),
    pytest.param(lambda x: x.chunk(2, 2)[1].select(1, 2), id="chunk"),
    pytest.param(lambda x: x.unfold(2, 3, 1), id="unfold"),
    pytest.param(lambda x: x.permute(0, 2, 3, 1) * 2 + 1, id="arithmetic"),
    pytest.param(lambda x: x.flatten(2).transpose(1, 2).clone(), id="clone"),
]


@pytest.mark.parametrize("do", STRIDED)
def test_strides_are_pytorchs(do: object) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = do(x)  # type: ignore[operator]
            answers.append((tuple(y.shape), y.is_contiguous(), y.stride() if 1 not in y.shape else ()))
            return y

    answers: list[object] = []
    size(Net(), (4, 4, 4))
    Net()(torch.randn(1, 4, 4, 4))
    assert answers[0] == answers[1]


def test_patches_and_back() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            columns = F.unfold(x, 3, padding=1, stride=2)
            image = F.fold(columns, (16, 16), 3, padding=1, stride=2)
            return columns, image, x.unfold(2, 4, 2).unfold(3, 4, 2), x.repeat_interleave(3, 1)

    sheet = size(Net(), (8, 16, 16), batch_size=2)
    assert sheet.output == tuple(tuple(y.shape) for y in Net()(torch.randn(2, 8, 16, 16)))
    assert sheet.not_counted == ()
    # An addition for each element of a column.
    assert sheet.flops_by_kind == {"copy": 2 * 8 * 9 * 64}
    assert [row.receptive_field.size for row in sheet.rows[:2] if row.receptive_field] == [(3, 3), (3, 3)]


def test_tensors_that_a_user_keeps_are_not_used_again() -> None:
    kept: list[Tensor] = []

    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept.append(x.exp())
            return kept[-1].exp()

    size(Keeps(), (3, 4, 4))
    size(nn.ReLU(), (5, 6, 7))
    size(Keeps(), (9, 9, 9))
    assert [tuple(x.shape) for x in kept] == [(1, 3, 4, 4), (1, 9, 9, 9)]


def test_marks_on_a_tensor_do_not_come_back() -> None:
    class Marks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()
            assert not hasattr(y, "mark")
            y.mark = 1  # type: ignore[attr-defined]
            return y.exp()

    for _ in range(3):
        size(Marks(), (3,))


def test_table_that_is_not_saved_is_multiplied() -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", torch.ones(4), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + (torch.arange(6.0)[:, None] @ self.frequencies[None]).sum()

    assert size(Rotary(), (3,)).macs == 6 * 4


def test_dependence_on_values_names_the_line() -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(DataDependentError, match=r"value through `__bool__` at .*test_tracer\.py:\d+"):
        size(Looks(), 8)


def test_dependence_on_a_mask() -> None:
    class Masks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0]

    with pytest.raises(DataDependentError, match=r"selects by a mask at .*test_tracer\.py:\d+"):
        size(Masks(), 8)


def test_too_small_an_input() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 7), nn.MaxPool2d(2))
    with pytest.raises(
        ShapeError, match=r"layer '0': conv2d: a window of 7 does not fit 5.*works is \(3, 8, 8\)"
    ):
        size(net, 5)


def test_smallest_input_is_said_once() -> None:
    class Checks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] < 9:
                raise ValueError("8x8 px; the smallest size that works is 9x9")
            return x

    message = r"8x8 px \(network input \(1, 3, 8, 8\)\); the smallest input that works is \(3, 9, 9\)$"
    with pytest.raises(SizingError, match=message):
        size(Checks(), (3, 8, 8))


def test_wrong_channels() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Conv2d(5, 6, 1))
    with pytest.raises(ShapeError, match=r"layer '1': conv2d: expects 5 channels, got 4 in \(1, 4, 8, 8\)"):
        size(net, 8)


def test_error_within_a_forward_names_its_module() -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] != 9:
                raise AssertionError("wants 9")
            return x

    with pytest.raises(SizingError, match=r"layer '1': AssertionError: wants 9 .*works is \(3, 9, 9\)"):
        size(nn.Sequential(nn.Conv2d(3, 3, 1), Strict()), 8)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param({"input_size": "224"}, TypeError, "`input_size`='224'", id="text"),
        pytest.param({"input_size": [(3, "a")]}, TypeError, "`input_size` holds", id="no sizes"),
        pytest.param({"input_size": 0}, ValueError, "at least 1", id="zero"),
        pytest.param({"input_size": 8, "batch_size": 0}, ValueError, "`batch_size`=0", id="no batch"),
        pytest.param(
            {"input_size": 8, "optimizer": "lion"}, ValueError, "`optimizer`='lion'", id="optimizer"
        ),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        size(nn.Conv2d(3, 4, 1), **kwargs)


def test_not_a_module() -> None:
    with pytest.raises(TypeError, match="`net`=int"):
        size(3, 224)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Identity())


class Named(nn.Module):
    """A forward with every kind of argument."""

    def forward(self, x: Tensor, mask: Tensor | None = None, *, extra: object = None) -> Tensor:
        x = x.relu() if mask is None else x * mask
        if isinstance(extra, dict):
            return x + extra["a"] + extra["more"][0]
        return x


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        pytest.param({"x": (3, 8), "mask": torch.ones(1, 3, 8)}, 2, id="named"),
        pytest.param([(3, 8), None], 1, id="none"),
        pytest.param({"x": (3, 8), "extra": {"a": (3, 8), "more": [(3, 8)]}}, 3, id="nested"),
    ],
)
def test_inputs_of_every_kind(given: object, inputs: int) -> None:
    sheet = size(Named(), given)
    assert sheet.output == (1, 3, 8)
    assert len(sheet.request.shapes) == inputs


@pytest.mark.parametrize(
    ("net", "message"),
    [
        pytest.param(nn.Sequential(nn.LazyConv2d(4, 3)), "0 has no shape yet", id="lazy"),
        pytest.param(nn.Sequential(scripted()), "0 is a ScriptModule", id="scripted"),
    ],
)  # fmt: skip
def test_what_has_no_shape_or_no_python_is_refused_at_once(net: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        size(net, 8)


def test_compiled_parts_run_as_written() -> None:
    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.compile(nn.Conv2d(3, 4, 3))
            self.b = nn.Conv2d(4, 4, 3)
            self.b.compile()

        def forward(self, x: Tensor) -> Tensor:
            return torch.compile(lambda y: y * 2)(self.b(self.a(x)))

    assert [row.op for row in size(Compiled(), 8).rows] == ["conv2d", "conv2d", "mul"]


def test_a_forward_that_ends_the_process_is_an_error() -> None:
    class Quits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise SystemExit(0)

    with pytest.raises(SizingError, match="SystemExit"):
        size(Quits(), (3, 8, 8))


class Caching(nn.Module):
    """A block that keeps a table, made at the first call, in containers, as TinyViT keeps its biases."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4, 4))
        self.cache: dict[str, Tensor] = {}
        self.nested: dict[str, list[Tensor]] = {"kept": []}
        self.seen: set[int] = {1}

    def forward(self, x: Tensor) -> Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias * 2.0
        self.nested["kept"].append(x)
        self.seen.add(len(self.nested["kept"]) + 1)
        return x @ self.cache["bias"]


def test_what_a_forward_puts_into_containers_is_taken_out() -> None:
    net = nn.Sequential(Caching(), Caching())
    first, second = size(net, (3, 4)), size(net, (3, 4))
    assert first.rows == second.rows
    for block in net:
        assert (block.cache, block.nested, block.seen) == ({}, {"kept": []}, {1})
    held = torch.eye(4)
    net[0].cache["bias"] = held
    size(net, (3, 4))
    assert net[0].cache["bias"] is held
    assert torch.equal(net[0](torch.ones(3, 4)), torch.ones(3, 4))


def test_tiny_vit_is_sized_twice_alike() -> None:
    net = timm.create_model("tiny_vit_5m_224").eval()
    first, second = size(net, 224), size(net, 224)
    assert (first.rows, first.macs, first.depth) == (second.rows, second.macs, second.depth)
