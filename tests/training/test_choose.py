import copy
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas import create_model
from convatlas.training.cpu.choose import ExecutionPlan, choose_execution, prepare
from convatlas.training.cpu.fused_layers import part, spare_copies

CPU = torch.device("cpu")


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that the processor has some instructions."""

    def pretend(*, bf16: bool = False, amx: bool = False) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return pretend


def gradients(net: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    net.zero_grad()
    torch.manual_seed(0)
    F.cross_entropy(forward(x).float(), torch.arange(len(x)) % 10).backward()
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("instructions", "autocast", "reason"),
    [
        pytest.param({}, None, "float32 arithmetic: the processor has no bfloat16 of its own", id="neither"),
        pytest.param(
            {"bf16": True}, torch.bfloat16, "bfloat16 arithmetic: the processor has AVX512-BF16", id="bf16"
        ),
        pytest.param(
            {"bf16": True, "amx": True},
            torch.bfloat16,
            "bfloat16 arithmetic: the processor has AMX",
            id="amx",
        ),
    ],
)
def test_the_chip_decides(
    chip: Callable[..., None], instructions: dict[str, bool], autocast: torch.dtype | None, reason: str
) -> None:
    chip(**instructions)
    execution = choose_execution(CPU)
    assert (execution.autocast, execution.scaler, execution.channels_last) == (autocast, False, True)
    assert (execution.fused, execution.compile) == (True, False)
    assert reason in execution.reasons


def test_a_network_without_convolutions_needs_no_layout() -> None:
    execution = choose_execution(CPU, net=nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    assert not execution.channels_last
    assert not any("channels-last" in reason for reason in execution.reasons)


def test_exact_turns_all_of_it_off(chip: Callable[..., None]) -> None:
    chip(bf16=True)
    execution = choose_execution(CPU, exact=True)
    assert (execution.autocast, execution.scaler, execution.channels_last) == (None, False, False)
    assert (execution.fused, execution.compile) == (False, False)
    assert len(execution.reasons) == 1


def test_the_compiler_is_used_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # Something that exists: it is not run here.
    execution = choose_execution(CPU, compile=True)
    assert execution.compile
    assert "compiled: as asked" in execution.reasons


def test_the_compiler_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"`compile`=True; on a CPU, it needs a C\+\+ compiler"):
        choose_execution(CPU, compile=True)


def test_exact_and_compiled_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"`compile`=True; the compiler rearranges sums"):
        choose_execution(CPU, exact=True, compile=True)


@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v2_035", "efficientnet_b0"])
def test_the_fast_path_learns_as_the_exact_one(chip: Callable[..., None], name: str) -> None:
    chip()
    torch.manual_seed(0)
    # In double precision, so that only what is computed makes a difference, not how it is rounded.
    net = create_model(name, num_classes=10, drop_rate=0.0).train().double()
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    exact = copy.deepcopy(net)
    expected = gradients(exact, prepare(exact, choose_execution(CPU, exact=True, net=exact)), x)
    found = gradients(net, prepare(net, choose_execution(CPU, net=net)), x)
    assert net.get_parameter("stem.conv.weight").is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "efficientnet_b0"])
def test_sparing_copies_changes_no_bit(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(name, num_classes=10, drop_rate=0.0).train()
    x = torch.randn(2, 3, 48, 48)
    plain = copy.deepcopy(net)
    expected = gradients(plain, plain, x)
    spare_copies(net)
    for ours, theirs in zip(gradients(net, net, x), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(net.eval()(x), plain.eval()(x))


def test_a_network_that_spares_copies_is_still_itself() -> None:
    net = create_model("mobilenet_v2_035", num_classes=10)
    keys, text = list(net.state_dict()), repr(type(net))
    spare_copies(net)
    again = pickle.loads(pickle.dumps(net)).eval()
    x = torch.randn(1, 3, 32, 32)
    assert list(again.state_dict()) == keys
    assert repr(type(again)) == text
    assert all(isinstance(layer, nn.ReLU6) for layer in net.modules() if "ReLU6" in type(layer).__name__)
    traced = torch.fx.symbolic_trace(net.eval())
    assert torch.equal(traced(x), again(x))


def test_activations_that_spared_copies_are_as_before() -> None:
    net = nn.Sequential(nn.ReLU6(inplace=True), nn.SiLU(inplace=True), nn.SiLU())
    text = str(net)
    spare_copies(net)
    x = torch.randn(8)
    once = x.clone()
    net[1](once)
    assert torch.equal(once, x), "SiLU does not work in place while it trains"
    part(net)
    assert str(net) == text


def test_clipped_values_pass_no_gradient_on() -> None:
    layer = nn.Sequential(nn.Identity(), nn.ReLU6(inplace=True))
    spare_copies(layer)
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0], requires_grad=True)
    y = layer(x * 1.0)
    y.sum().backward()
    assert y.tolist() == [0.0, 0.0, 3.0, 6.0, 6.0]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_lower_precision_computes_in_it_and_keeps_the_weights(chip: Callable[..., None]) -> None:
    chip(bf16=True)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10))
    forward = prepare(net, choose_execution(CPU, net=net))
    x = torch.randn(4, 3, 8, 8)
    assert forward(x).dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in gradients(net, forward, x))
    assert net(x).dtype == torch.float32  # outside of training steps


COUNT_FAULTS = """
import resource
from itertools import pairwise

import torch

from convatlas.training.cpu.malloc import kept_memory


def fewest_faults():
    counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
    for _ in range(12):
        torch.ones(16 * 2**20)  # 64 MiB: 16,384 pages
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return min(after - before for before, after in pairwise(counts))


print(fewest_faults())
with kept_memory():
    print(fewest_faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_memory_is_kept_within() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True)
    before, within = map(int, done.stdout.split())
    assert before > 8000
    assert within < 800


def test_speed_says_what_it_is() -> None:
    assert isinstance(choose_execution(CPU), ExecutionPlan)
    assert all(isinstance(reason, str) and reason for reason in choose_execution(CPU).reasons)
