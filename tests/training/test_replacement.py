"""Which our own convolutions a training step takes, and why."""

from pathlib import Path

import pytest
import torch

from convatlas import create_model
from convatlas.training.cpu import replacement
from convatlas.training.cpu.choose import choose_execution, prepare
from convatlas.training.cpu.depthwise import DEPTHWISE, DepthwiseConv2d
from convatlas.training.cpu.fused_layers import part
from convatlas.training.cpu.library import library
from convatlas.training.cpu.replacement import Replacement, gain
from convatlas.training.cpu.winograd import WINOGRAD, WinogradConv2d

CPU = torch.device("cpu")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of nothing but what is compiled already."""
    monkeypatch.setattr(replacement, "cache_folder", lambda: tmp_path)
    (tmp_path / "native").mkdir()
    return tmp_path / "native"


def test_the_gain_is_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first = gain(WINOGRAD, None)
        assert torch.get_num_threads() == 3, "one thread measures, and the others come back"
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state), "seeded runs draw the same, measured or not"
    assert first > 0.0
    monkeypatch.setattr(replacement, "_measure", lambda *_: pytest.fail("it is measured again"))
    assert gain(WINOGRAD, None) == first


def test_the_first_measurement_counts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(ours: Replacement, dtype: torch.dtype | None) -> float:
        if not list(cache.iterdir()):  # While this one measures, another process does, and is done.
            monkeypatch.setattr(replacement, "_measure", lambda *_: 3.0)
            assert gain(WINOGRAD, dtype) == 3.0
        return 2.0

    monkeypatch.setattr(replacement, "_measure", measure)
    assert gain(WINOGRAD, torch.bfloat16) == 3.0


def test_each_type_and_kind_has_its_gain(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {(WINOGRAD, None): 2.0, (WINOGRAD, torch.bfloat16): 0.5, (DEPTHWISE[0], None): 3.0}
    monkeypatch.setattr(replacement, "_measure", lambda *asked: measured[asked])
    assert [gain(*asked) for asked in (*measured, *measured)] == [2.0, 0.5, 3.0] * 2


@pytest.mark.parametrize(
    ("name", "ours", "times", "reason"),
    [
        (
            "vgg11",
            WINOGRAD,
            1.8,
            "3x3 convolutions with a quarter of the products: 1.80 times as fast as torch's here",
        ),
        (
            "vgg11",
            WINOGRAD,
            1.05,
            "3x3 convolutions by torch: with a quarter of the products they are 1.05 times as fast here",
        ),
        (
            "mobilenet_v2_035",
            DEPTHWISE[0],
            3.0,
            "depthwise 3x3 convolutions in our C++: 3.00 times as fast as torch's here",
        ),
        (
            "mobilenet_v2_035",
            DEPTHWISE[0],
            0.9,
            "depthwise 3x3 convolutions by torch: in our C++ they are 0.90 times as fast here",
        ),
    ],
)
def test_what_is_faster_is_used(
    name: str, ours: Replacement, times: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convatlas.training.cpu.choose.gain", lambda *_: times)
    net = create_model(name, num_classes=10)
    kinds = [type(layer) for layer in net.modules()]
    execution = choose_execution(CPU, net=net)
    is_used = times > 1.1
    assert execution.replaced == ((ours,) if is_used else ())
    assert reason in execution.reasons
    prepare(net, execution)
    assert any(type(layer) in (WinogradConv2d, DepthwiseConv2d) for layer in net.modules()) == is_used
    part(net)
    assert [type(layer) for layer in net.modules()] == kinds


@pytest.mark.parametrize(
    ("before", "reasons"),
    [
        (("winograd",), ["3x3 convolutions with a quarter of the products: as when the training began"]),
        ((), ["3x3 convolutions by torch: as when the training began"]),
    ],
    ids=["ours", "torch's"],
)
def test_what_a_training_began_with_is_not_measured(
    before: tuple[str, ...], reasons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convatlas.training.cpu.choose.gain", lambda *_: pytest.fail("it is measured"))
    execution = choose_execution(CPU, net=create_model("vgg11", num_classes=10), replaced=before)
    assert tuple(ours.name for ours in execution.replaced) == before
    assert [reason for reason in execution.reasons if "3x3" in reason] == reasons


def test_channels_that_fill_no_vector_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    if library().train_lanes() == 4:
        pytest.skip("12 channels are three whole vectors on this processor")
    monkeypatch.setattr("convatlas.training.cpu.choose.gain", lambda *_: pytest.fail("it is measured"))
    execution = choose_execution(CPU, net=create_model("densenet40_12_cifar", num_classes=10))
    assert not execution.replaced
    assert "3x3 convolutions by torch: their channels are not multiples of" in "\n".join(execution.reasons)


def test_nothing_is_measured_without_a_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convatlas.training.cpu.choose.gain", lambda *_: pytest.fail("it is measured"))
    assert not choose_execution(CPU, net=create_model("lenet5", num_classes=10)).replaced


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(replacement, "cache_folder", lambda: tmp_path / "missing")
    monkeypatch.setattr(replacement, "_measure", lambda *_: 2.0)
    execution = choose_execution(CPU, net=create_model("vgg11", num_classes=10))
    assert not execution.replaced
    assert "3x3 convolutions by torch: what was measured cannot be kept in" in "\n".join(execution.reasons)


def test_without_a_compiler_convolutions_are_torchs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    execution = choose_execution(CPU, net=create_model("vgg11", num_classes=10))
    assert not execution.replaced
    assert "3x3 convolutions by torch: needs a C++ compiler" in "\n".join(execution.reasons)
