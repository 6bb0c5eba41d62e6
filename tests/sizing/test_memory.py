"""Memory against what autograd really keeps and what a real forward really allocates."""

import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from convatlas.sizing import size

NETS = ["alexnet", "vgg11", "resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
"efficientnet_b0",
        "googlenet", "shufflenet_v2_x1_0", "squeezenet1_1", "convnext_tiny", "swin_t",
        "timm/vit_tiny_patch16_224",
        "timm/legacy_xception"]  # fmt: skip


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("timm/"):
            return timm.create_model(name.removeprefix("timm/"))
        options = {"init_weights": False} if name == "googlenet" else {}
        return torchvision.models.get_model(name, **options)


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    yield build(request.param)


def weights(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


def kept_by_autograd(net: nn.Module, x: Tensor) -> int:
    own = {p.untyped_storage().data_ptr() for p in weights(net)}
    storages: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = net.train()(x)
    del out
    return sum(storages.values())


class Allocations(TorchDispatchMode):
    """Bytes of all storages that a forward makes, while they live."""

    def __init__(self, ignored: set[int]) -> None:
        super().__init__()
        self.ignored = ignored
        self.live: dict[int, int] = {}
        self.peak = 0

    def note(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        if storage._cdata in self.ignored or storage._cdata in self.live:
            return
        self.live[storage._cdata] = storage.nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        weakref.finalize(storage, self.live.pop, storage._cdata, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self.note(t)
        return out


def peak_of_allocations(net: nn.Module, x: Tensor) -> int:
    ignored = {p.untyped_storage()._cdata for p in weights(net)}
    with torch.no_grad(), Allocations(ignored) as seen:
        seen.note(x)
        net.eval()(x)
    return seen.peak


def nbytes(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


PX = 224


def test_peak_inference_bytes(net: nn.Module) -> None:
    expected = peak_of_allocations(net, torch.randn(1, 3, PX, PX))
    found = size(net, PX).peak_inference_bytes - nbytes(weights(net))
    assert found == pytest.approx(expected, rel=0.05)


def test_what_autograd_keeps(net: nn.Module) -> None:
    expected = kept_by_autograd(net, torch.randn(2, 3, PX, PX))
    found = size(net, PX, batch_size=2).training_memory().saved
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param("sgd", lambda p: torch.optim.SGD(p, 0.1), id="sgd"),
        pytest.param("momentum", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), id="momentum"),
        pytest.param("rmsprop", lambda p: torch.optim.RMSprop(p, 0.1), id="rmsprop"),
        pytest.param("adam", lambda p: torch.optim.Adam(p), id="adam"),
        pytest.param("adamw", lambda p: torch.optim.AdamW(p), id="adamw"),
    ],
)
def test_optimizer_state(name: str, make: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    net[0].requires_grad_(False)
    memory = size(net, 8, batch_size=2, optimizer=name).training_memory()
    learnt = [p for p in net.parameters() if p.requires_grad]
    optimizer = make(learnt)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    assert memory.optimizer == nbytes(state)
    assert memory.gradients == nbytes([p.grad for p in learnt if p.grad is not None])
    assert memory.params == nbytes(list(net.parameters()))
    assert memory.total == sum(
        [memory.params, memory.buffers, memory.gradients, memory.optimizer, memory.saved]
    )
    assert size(net, 8, batch_size=2, optimizer=name).training_bytes == memory.total


def test_frozen_stem_keeps_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    net[0].requires_grad_(False)
    assert (
        size(net, 8).training_memory().saved == kept_by_autograd(net, torch.randn(1, 3, 8, 8)) == 8 * 36 * 4
    )


def test_half_precision_halves() -> None:
    net = build("alexnet")
    full, half = size(net, PX), size(net, PX, dtype=torch.bfloat16)
    assert half.peak_inference_bytes < 0.6 * full.peak_inference_bytes
    assert half.training_memory("adamw").params * 2 == full.training_memory("adamw").params


def test_del_frees_early() -> None:
    class Chain(nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.keep = keep

        def forward(self, x: Tensor) -> Tensor:
            first = x.exp()
            second = first.exp()
            if not self.keep:
                del first
            return second.exp()

    kept, freed = (size(Chain(keep), (1000,)).peak_inference_bytes for keep in (True, False))
    assert (kept, freed) == (16_000, 12_000)


def test_unknown_optimizer() -> None:
    with pytest.raises(ValueError, match="`optimizer`='lion'; expected one of sgd"):
        size(nn.Linear(2, 2), (2,)).training_memory("lion")


def same() -> nn.Module:
    return nn.Conv2d(8, 8, 3, padding=1)


class Checkpointed(nn.Module):
    """Convolutions, all but the first of which run again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(3)
        )
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.parts:
            x = checkpoint(part, x, use_reentrant=self.reentrant)
        return x.relu()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_parts_keep_their_inputs_only(reentrant: bool) -> None:
    net = Checkpointed(reentrant)
    expected = kept_by_autograd(net, torch.randn(2, 3, 16, 16))
    assert expected == 4 * 2 * (3 + 4 * 8) * 256
    assert size(net, 16, batch_size=2).training_memory().saved == expected


def test_densenet_that_saves_memory() -> None:
    net = torchvision.models.densenet121(memory_efficient=True)
    expected = kept_by_autograd(net, torch.randn(2, 3, 64, 64))
    assert size(net, 64, batch_size=2).training_memory().saved == pytest.approx(expected, rel=0.01)


def test_weights_of_several_dtypes() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low = nn.Conv2d(3, 4, 3).half()
            self.high = nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.high(self.low(x).float())

    net = Mixed()
    memory = size(net, 8).training_memory("sgd")
    assert memory.params == nbytes(list(net.parameters())) == 2 * (3 * 36 + 4) + 4 * (4 * 36 + 4)
    assert [row.dtype for row in size(net, 8).rows] == [torch.float16, torch.float32, torch.float32]
    assert size(net, 8, dtype=torch.float32).training_memory("sgd").params == 4 * (3 * 36 + 4 + 4 * 36 + 4)
