"""Exported files: they give the network's logits, and say how to prepare images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convatlas
from convatlas.data.transforms import Transform
from convatlas.engines.backend import EngineError
from convatlas.engines.export import export, untrained_network
from convatlas.engines.exported import SUFFIXES, open_exported
from convatlas.engines.request import synthetic_images
from convatlas.predict.calibration import read_calibration
from convatlas.predict.load import load_network

# What families have of their own, spread over the formats; benchmarks/export_matrix.py has all in each.
FILES = [
    ("lenet5_1998", 32, ".onnx"),  # connection table, RBF
    ("lenet5_1998", 32, ".pt2"),
    ("lenet5_1998", 32, ".xml"),
    ("googlenet", 64, ".onnx"),  # ceil-mode pooling, normalisation across channels, side classifiers
    ("googlenet", 64, ".xml"),
    ("resnet20_cifar", 32, ".onnx"),  # zeros for new channels
    ("resnet20_cifar", 32, ".xml"),
    ("densenet40_12_cifar", 32, ".xml"),
    ("se_resnet18", 64, ".onnx"),  # gates
    ("efficientnet_b0", 64, ".xml"),
    ("mobilenet_v2_035", 64, ".onnx"),
    ("nin_cifar", 32, ".xml"),
]


def network(name: str, size: int) -> nn.Module:
    """The network with its norms' statistics taken from images, so that logits do not fade away."""
    torch.manual_seed(0)
    net = untrained_network(name)
    chans = net.config.in_chans
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            net.train()(synthetic_images((16, chans, size, size)))
    return net.eval()


def relative(logits: Tensor, expected: Tensor) -> float:
    return ((logits - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def lenet(lenet_run: Path) -> nn.Module:
    """A trained network."""
    return load_network(lenet_run)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Images of the data set that it was trained on."""
    from convatlas.data.sources import load_source

    return load_source("digits").test.images[:64]


@torch.no_grad()
@pytest.mark.parametrize(("name", "size", "suffix"), FILES)
def test_a_file_gives_the_network_s_logits(name: str, size: int, suffix: str, tmp_path: Path) -> None:
    net = network(name, size)
    made = export(net, tmp_path / f"net{suffix}", size)
    assert made.error <= 1e-4 and made.path.is_file()
    x = synthetic_images((3, net.config.in_chans, size, size))
    logits = open_exported(made.path)(x)
    assert net(x).std() > 1e-3
    assert relative(logits, net(x)) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "any batch"])
def test_what_goes_along(
    lenet: nn.Module, digits: Tensor, suffix: str, dynamic: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    export(lenet, path, batch_size=4, dynamic_batch=dynamic)
    found = open_exported(path)
    assert found.batch_size == (None if dynamic else 4)
    assert found.name == "lenet5"
    assert found.input_size == (1, 32, 32)
    assert found.transform == lenet.transform
    assert found.class_names == tuple("0123456789")
    x = lenet.transform.normalise(digits[:6])
    assert relative(found(x), lenet(x)) <= 1e-4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exported_file_predicts_as_the_run_does(
    lenet_run: Path, lenet: nn.Module, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    export(lenet, path)
    image = Image.new("L", (40, 40), 255)
    image.paste(0, (18, 5, 22, 35))
    (from_file,), (from_run,) = (convatlas.load(source).predict(image) for source in (path, lenet_run))
    assert [name for name, _ in from_file.top] == [name for name, _ in from_run.top]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_int8_is_calibrated_on_images(lenet: nn.Module, digits: Tensor, suffix: str, tmp_path: Path) -> None:
    images = lenet.transform.normalise(digits)
    whole, small = tmp_path / f"whole{suffix}", tmp_path / f"small{suffix}"
    export(lenet, whole)
    made = export(lenet, small, int8=True, calibration=images)
    assert made.images == 16 and made.same_top >= 0.9
    assert 1e-4 < made.error < 0.5
    weights = [path.with_suffix(".bin") if suffix == ".xml" else path for path in (small, whole)]
    assert weights[0].stat().st_size < 0.5 * weights[1].stat().st_size


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_int8_that_does_not_agree_is_refused(
    lenet: nn.Module, digits: Tensor, suffix: str, tmp_path: Path
) -> None:
    images = lenet.transform.normalise(digits)
    with pytest.raises(EngineError, match=r"was not written, as its logits differ by .* 1\.0e-04 is allowed"):
        export(lenet, tmp_path / f"net{suffix}", int8=True, calibration=images, tolerance=1e-4)
    assert list(tmp_path.iterdir()) == []


def test_what_stood_there_is_replaced_only_by_what_agrees(lenet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("what stood there")
    refused = r"was not written, as its logits differ by .* 0\.0e\+00 is allowed"
    with pytest.raises(EngineError, match=refused):
        export(lenet, path, tolerance=0.0)
    assert path.read_text() == "what stood there"
    export(lenet, path)
    assert open_exported(path).num_classes == 10


def test_side_classifiers_stay_behind(tmp_path: Path) -> None:
    net = network("googlenet", 64)
    count = sum(p.numel() for p in net.parameters())
    written = export(net, tmp_path / "net.pt2", 64)
    # Szegedy et al. 2015, Section 5: 128 maps of 4 px, then 1,024 units, then the classes, in each of two.
    aside = sum(p.numel() for head in net.aux_heads for p in head.parameters())
    assert aside > 6_000_000
    assert 4 * (count - aside) < written.bytes < 4 * (count - aside) + 2**20
    assert sum(p.numel() for p in net.parameters()) == count, "the network still has them"


def test_the_network_stays_in_training_mode(tmp_path: Path) -> None:
    net = convatlas.create_model("lenet5")
    export(net, tmp_path / "net.pt2")
    assert net.training


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("net.pb", {}, r"expected a file that ends in \.onnx, \.pt2, \.xml"),
        ("net.pt2", {"int8": True}, r"int8 is written as \.onnx or \.xml"),
        ("net.onnx", {"int8": True}, "`calibration`=None; int8 takes its ranges from images"),
        ("net.onnx", {"batch_size": 0}, "`batch_size`=0; expected a whole number of at least 1"),
        ("net.onnx", {"tolerance": -1.0}, "`tolerance`=-1.0; expected a relative error of at least 0"),
        ("net.onnx", {"agreement": 90}, "`agreement`=90; expected a share from 0 to 1"),
        ("net.onnx", {"input_size": 8}, "the smallest size that works"),
    ],
    ids=["suffix", "int8", "calibration", "batch", "tolerance", "agreement", "size"],
)
def test_bad_arguments_are_named(name: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export(convatlas.create_model("lenet5"), tmp_path / name, **options)  # type: ignore[arg-type]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        export(convatlas.create_model("lenet5"), tmp_path / "none" / "net.onnx")


def test_a_network_that_torch_cannot_export_is_refused(tmp_path: Path) -> None:
    class Choosy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else x.flatten(1) * 2

    with pytest.raises(EngineError, match="torch cannot export the network"):
        export(Choosy(), tmp_path / "net.onnx", (1, 4, 4))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no network"], ids=["empty", "text"])
def test_a_damaged_file_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"net\.\w+: damaged, or no"):
        open_exported(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_named(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file"):
        open_exported(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_px_are_refused(lenet: nn.Module, suffix: str, tmp_path: Path) -> None:
    export(lenet, tmp_path / f"net{suffix}")
    with pytest.raises(
        ValueError, match=r"is for images of shape \(B, 1, 32, 32\); received \(1, 1, 28, 28\)"
    ):
        open_exported(tmp_path / f"net{suffix}")(torch.zeros(1, 1, 28, 28))


def test_class_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    net = untrained_network("lenet5")
    net.class_names = ("one", "two")
    with pytest.raises(EngineError, match="names 2 classes; there are 10 logits"):
        export(net, tmp_path / "net.pt2")


def test_calibration_images_are_prepared_and_bad_ones_left_out(tmp_path: Path) -> None:
    transform = Transform("photo", (3, 16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for number in range(3):
        Image.new("RGB", (20, 30), (255, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1-bad.png").write_bytes(b"no image")
    images = read_calibration(tmp_path, transform)
    assert images.shape == (3, 3, 16, 16)
    assert images[:, 0].sub(1.0).abs().max() < 1e-6 and images[:, 1:].add(1.0).abs().max() < 1e-6
    assert len(read_calibration(tmp_path, transform, most=3)) == 2  # Of the first three, one is bad.


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    transform = Transform("photo", (3, 16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="holds no image that can be used"):
        read_calibration(tmp_path, transform)


def test_a_transform_of_one_s_own_does_not_go_along(tmp_path: Path) -> None:
    net = untrained_network("lenet5")
    net.transform = lambda image: torch.zeros(1, 32, 32)
    export(net, tmp_path / "net.pt2")
    found = open_exported(tmp_path / "net.pt2")
    assert found.transform is None
    with pytest.raises(ValueError, match="has no `transform`"):
        read_calibration(tmp_path, found.transform)
