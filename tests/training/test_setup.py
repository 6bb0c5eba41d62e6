"""What cannot work is refused before anything is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from convatlas import train
from convatlas.data.sets import ImageSet, Source


def pixels(count: int, chans: int, side: int) -> ImageSet:
    images = torch.randint(0, 256, (count, chans, side, side), dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 4)


def small_source(chans: int = 1, side: int = 28, labels: Tensor | None = None) -> Source:
    part = pixels(40, chans, side)
    if labels is not None:
        part = ImageSet(part.images, labels)
    return Source("small", part, part, ("a", "b", "c", "d"), "0" * 64, (chans, side, side))


def photos(root: Path, classes: int = 2, count: int = 6, side: int = 40) -> Path:
    draw = np.random.default_rng(0)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(count):
            array = draw.integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
            Image.fromarray(array).save(root / f"class{label}" / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param({"network": "lenet"}, r"unknown network 'lenet'; nearest: lenet5", id="network"),
        pytest.param({"data": "digit"}, r"unknown data set 'digit'; nearest: digits", id="data"),
        pytest.param(
            {"recipe": "resnet_cifr"}, r"unknown recipe 'resnet_cifr'; nearest: resnet_cif", id="recipe"
        ),
        pytest.param({"seed": -1}, r"`seed`=-1; expected a whole number of at least 0", id="seed"),
        pytest.param({"epoch": 3}, r"no field `epoch` \(received 3\); nearest: epochs", id="field"),
        pytest.param({"epochs": 0}, r"`epochs`=0; expected a whole number of at least 1", id="epochs"),
        pytest.param({"lr": float("nan")}, r"`lr`=nan; expected a number above 0", id="lr"),
        pytest.param({"loss": "hing"}, r"`loss`='hing'", id="loss"),
        pytest.param({"on_nan": "ignore"}, r"`on_nan`='ignore'; allowed are 'stop', 'skip',", id="nan"),
        pytest.param({"on_bad_image": "x"}, r"`on_bad_image`='x'; allowed are 'refuse'", id="bad"),
        pytest.param({"save_every": 0}, r"`save_every`=0; expected a whole number", id="save-every"),
        pytest.param({"keep": 0}, r"`keep`=0; expected a whole number of at least 1", id="keep"),
        pytest.param({"workers": -1}, r"`workers`=-1; expected a whole number of at least 0", id="workers"),
        pytest.param({"device": "gpu"}, r"`device`='gpu'; expected a device of torch", id="device"),
        pytest.param({"device": "cuda:9"}, r"`device`='cuda:9' would be GPU 9, and torch sees", id="gpu"),
        pytest.param({"input_size": 0}, r"`input_size`=0; expected a whole number of at least 1", id="size"),
        pytest.param(
            {"input_size": 16},
            r"lenet5: `input_size`=16 is too small; at least 32 px are needed",
            id="small-size",
        ),
        pytest.param(
            {"sizes": ((0.0, 16), (0.5, 32))},
            r"`sizes`: 16 px is too small; lenet5 needs at least 32 px",
            id="sizes",
        ),
        pytest.param({"pretrained": True}, r"lenet5 has no published weights", id="pretrained"),
        pytest.param({"model": {"widht": 2}}, r"lenet5 has no option `widht`", id="model"),
        pytest.param({"test_data": []}, r"`test_data` goes with a dataset", id="test-data"),
        pytest.param(
            {"accumulate": 32, "batch_size": 32},
            r"`batch_size`=32: batches of 31 of the 1438 training images in 32 parts .* at least 32 images",
            id="parts",
        ),
        pytest.param({"data": [1, 2]}, r"the dataset gives int; expected \(image, label\)", id="list"),
    ],
)
def test_bad_arguments_leave_no_folder(tmp_path: Path, call: dict[str, Any], message: str) -> None:
    arguments = {"network": "lenet5", "epochs": 1} | call
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        train(**arguments, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("network", "side", "message"),
    [
        pytest.param(
            "alexnet",
            28,
            r"alexnet needs images of 67x67 px at least; those of `data`='small' are 28x28: train "
            r"resnet20_cifar, which is made for small images, or enlarge them with `--input 67` "
            r"\(`input_size=67`\)",
            id="no-cifar-variant",
        ),
        pytest.param(
            "densenet121",
            8,
            r"densenet121 needs images of \d+x\d+ px at least; .* are 8x8: train densenet\w+_cifar, which is "
            r"made for small images, or enlarge them with `--input \d+`",
            id="cifar-variant",
        ),
    ],
)
def test_images_too_small_for_the_network(tmp_path: Path, network: str, side: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(network, data=small_source(3, side), out=tmp_path / "runs", recipe="modern")
    assert not (tmp_path / "runs").exists()


def test_enlarged_images_are_enough(tmp_path: Path) -> None:
    run = train("lenet5", data=small_source(side=28), input_size=32, out=tmp_path, epochs=1)
    assert run.record["config"]["input_size"] == 32
    assert run.record["options"] == {"input": 32}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param([0, 4], r"`data`='small': training labels go from 0 to 4; expected 0 to 3", id="high"),
        pytest.param([-1, 3], r"`data`='small': training labels go from -1 to 3; expected 0 to 3", id="low"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: list[int], message: str) -> None:
    source = small_source(labels=torch.tensor(labels * 20))
    with pytest.raises(ValueError, match=message):
        train("lenet5", data=source, out=tmp_path / "runs", input_size=32)


class Flat(nn.Module):
    """Logits for ten classes, from images of 28 px and one channel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


@pytest.mark.parametrize(
    ("net", "source", "options", "message"),
    [
        pytest.param(
            Flat(),
            small_source(),
            {},
            r"Flat: gives \(2, 10\) for two images; `data`='small' has 4 classes, so expected \(2, 4\)",
            id="classes",
        ),
        pytest.param(
            Flat(),
            small_source(side=20),
            {},
            r"Flat: cannot take images of shape \(2, 1, 20, 20\): .*mat1",
            id="shape",
        ),
        pytest.param(
            nn.Sequential(Flat(), nn.Linear(10, 4)),
            small_source(),
            {"pretrained": True},
            r"`pretrained`=True goes with the name of a network",
            id="pretrained",
        ),
        pytest.param(
            nn.Sequential(Flat(), nn.Linear(10, 4)),
            small_source(),
            {"drop_rate": 0.5},
            r"`drop_rate`=0.5 goes with the name of a network",
            id="drop-rate",
        ),
    ],
)
def test_modules_that_do_not_fit(
    tmp_path: Path, net: nn.Module, source: Source, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(net, data=source, out=tmp_path / "runs", batch_size=8, **options)
    assert not (tmp_path / "runs").exists()


def test_batches_too_small_for_batch_normalisation(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"`batch_size`=1: batches of 1 of the 40 .* at least 2 images are needed"
    ):
        train("resnet20_cifar", data=small_source(), out=tmp_path / "runs", batch_size=1, epochs=1)


def test_too_little_disk_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2**20))
    message = r"no room for the 5 checkpoints and the weights of a run: it needs [\d.]+ MiB, 1\.0 MiB"
    with pytest.raises(ValueError, match=message):
        train("lenet5", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_images_of_any_size(tmp_path: Path) -> None:
    data = f"folder:{photos(tmp_path / 'images')}"
    options = {"data": data, "recipe": "modern", "epochs": 1, "batch_size": 4, "out": tmp_path}
    run = train("resnet20_cifar", workers=0, **options)
    assert run.folder.name == "resnet20_cifar-images-1"
    smaller = train("resnet20_cifar", workers=0, input_size=24, **options)
    for found, size in ((run, 32), (smaller, 24)):
        from safetensors import safe_open

        with safe_open(found.folder / "weights.safetensors", "pt") as file:
            assert f'"input_size": [3, {size}, {size}]' in file.metadata()["transform"]


def test_an_unreadable_image_is_refused_or_skipped(tmp_path: Path) -> None:
    root = photos(tmp_path / "images", count=8)
    (root / "class0" / "3.png").write_bytes((root / "class0" / "3.png").read_bytes()[:200])
    options = {"data": f"folder:{root}", "recipe": "modern", "epochs": 1, "batch_size": 4, "workers": 0}
    with pytest.raises(ValueError, match=r"3\.png"):
        train("resnet20_cifar", out=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()
    run = train("resnet20_cifar", out=tmp_path / "runs", on_bad_image="skip", **options)
    assert run.record["data"]["train"] + run.record["data"]["test"] == 15
    assert [line for line in run.record["data"]["skipped"] if "3.png" in line]
    assert run.record["options"]["on_bad_image"] == "skip"


def test_a_dataset_that_is_small_comes_into_memory(tmp_path: Path) -> None:
    source = small_source()
    assert isinstance(source.train, ImageSet)
    data = TensorDataset(source.train.images, source.train.labels)
    run = train("lenet5", data=data, input_size=32, out=tmp_path, epochs=1)
    assert run.record["data"]["train"] == 32
