"""Published checkpoints: where they lie, how they are fetched and checked, and what a changed head means.

The data lie in `published.toml`: networks, and below each its tags, the default one first.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convatlas.blocks.head import equalise_logits
from convatlas.errors import UnknownNameError, unknown
from convatlas.files import with_tuples
from convatlas.weights.errors import WeightsError
from convatlas.weights.files import read_weights
from convatlas.weights.load import copy_weights, rename_keys, side_classifiers

TABLE = Path(__file__).parent / "published.toml"
CLASSES = Path(__file__).parent / "imagenet_classes.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published checkpoint.

    Attributes:
        network: ours, that it fits.
        tag: tells the checkpoints of one network apart.
        source: the library whose keys it has, as `load_foreign` takes it.
        file: path inside the package or repository.
        licence: SPDX identifier, as its publisher states it.
        package: the installed Python package that holds it; "" where none does.
        hub: repository on the Hugging Face hub; "" where none holds it.
        sha256: checksum in hexadecimal; "" for the one that the hub states for the file.
        num_classes: K that it was trained for.
        input_size: C, H, W that it was trained with.
        mean: per-channel mean that inputs are normalised with, for values in [0, 1].
        std: per-channel standard deviation, in the units of `mean`.
        interpolation: how images are resized.
        crop_pct: share of the resized short side that the central test crop keeps.
        note: what else a user must know.
    """

    network: str
    tag: str
    source: str
    file: str
    licence: str
    package: str = ""
    hub: str = ""
    sha256: str = ""
    num_classes: int = 1000
    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    note: str = ""

    @property
    def label(self) -> str:
        """Network and tag, as messages name the checkpoint."""
        return f"{self.network}.{self.tag}"


@functools.cache
def all_published() -> dict[str, dict[str, Published]]:
    """Every published checkpoint, by network and tag; a network's first tag is its default.

    Raises:
        WeightsError: an entry of the table is unknown or missing.
    """
    data = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    try:
        return {
            network: {tag: _make_published(network, tag, entry) for tag, entry in tags.items()}
            for network, tags in data.items()
        }
    except TypeError as error:
        raise WeightsError(f"{TABLE.name}: {error}") from error


def _make_published(network: str, tag: str, entry: dict[str, Any]) -> Published:
    return Published(network=network, tag=tag, **with_tuples(entry))


def find_published(network: str, tag: bool | str = True) -> Published:
    """The checkpoint of a network.

    Args:
        network: our name.
        tag: True for the default one.

    Raises:
        UnknownNameError: the network has no checkpoint, or none of this tag; the message says what there is.
        TypeError: `tag` is neither True nor text.
    """
    if tag is not True and not isinstance(tag, str):
        raise TypeError(f"`pretrained`={tag!r}; expected True, False or the tag of a checkpoint")
    tags = all_published().get(network)
    if tags is None:
        raise UnknownNameError(
            f"`pretrained`={tag!r}: {network} has no published weights here; "
            f"networks that have: {', '.join(all_published())}"
        )
    if tag is True:
        return next(iter(tags.values()))
    if tag not in tags:
        raise unknown(f"weights of {network},", tag, tags, f"it has {', '.join(tags)}")
    return tags[tag]


def load_pretrained(net: nn.Module, tag: bool | str = True) -> Published:
    """Copies a published checkpoint into one of our networks, in place.

    A classifier for another number of classes (0 too) begins at equal logits for all classes, so at a loss
    of ln K: whatever the checkpoint holds for layers named `fc` with one output a class is left out. A
    network for one channel gets the first convolution's weights summed over their channels, which answers to
    a grey image as the published network answers to its three equal channels.

    Args:
        net: one of our networks, with its `name`.
        tag: True for the default checkpoint.

    Returns:
        What was loaded, with the normalisation that its inputs need.

    Raises:
        UnknownNameError: as `find_published`.
        WeightsError: the file is absent, cannot be fetched, is not the published one, or does not fit.
    """
    entry = find_published(str(getattr(net, "name", "")), tag)
    weights = rename_keys(entry.network, read_weights(fetch(entry)), entry.source)
    given, kept = _adapt(weights.given, net.state_dict(keep_vars=True), entry)
    replaced = bool(kept)
    kept |= side_classifiers(net, weights)
    weights = dataclasses.replace(weights, given=given)
    copy_weights(net, weights, f"{entry.label}: weights", kept=kept, reshape=True)
    if replaced:
        for head in (net.get_submodule("head"), *getattr(net, "aux_heads", ())):
            equalise_logits(head)
    return entry


def _adapt(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], entry: Published
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The weights for a changed classifier or first convolution, and our keys that keep their values."""
    adapted: dict[str, Tensor] = {}
    kept: set[str] = set()
    for key, value in given.items():
        ours = wanted.get(key)
        per_class = key.split(".")[-2:-1] == ["fc"] and value.shape[:1] == (entry.num_classes,)
        if per_class and (ours is None or ours.shape[:1] != value.shape[:1]):
            kept.add(key)
        elif ours is not None and _is_first(value, ours, entry):
            if ours.shape[1] != 1:
                raise WeightsError(
                    f"{entry.label} was trained on {entry.input_size[0]} channels; published weights can be "
                    f"used with `in_chans`={entry.input_size[0]}, or 1; received {ours.shape[1]}"
                )
            adapted[key] = value.sum(dim=1, keepdim=True)
        else:
            adapted[key] = value
    return adapted, frozenset(kept)


def _is_first(value: Tensor, ours: Tensor, entry: Published) -> bool:
    """Whether a weight belongs to the first convolution, and ours takes another number of channels."""
    return (
        value.dim() == ours.dim() == 4
        and value.shape[1] == entry.input_size[0] != ours.shape[1]
        and (value.shape[0], *value.shape[2:]) == (ours.shape[0], *ours.shape[2:])
    )


def fetch(entry: Published) -> Path:
    """The file of a checkpoint, from an installed package or the hub, with its checksum verified.

    Raises:
        WeightsError: it is not installed, cannot be downloaded, or is not the published file.
    """
    if entry.package:
        path = _find_in_package(entry)
        _verify(path, entry.sha256, entry)
        return path
    return _fetch_from_hub(entry)


def is_here(entry: Published) -> bool:
    """Whether a checkpoint can be loaded without a network connection."""
    if entry.package:
        try:
            _find_in_package(entry)
        except WeightsError:
            return False
        return True
    try:
        import huggingface_hub as hub
    except ImportError:
        return False
    return isinstance(hub.try_to_load_from_cache(entry.hub, entry.file), str)


def _find_in_package(entry: Published) -> Path:
    try:
        files = importlib.metadata.files(entry.package) or []
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"{entry.label} comes with the Python package {entry.package}, which is not installed: "
            f"pip install {entry.package}, or '.[demo]' in a checkout"
        ) from None
    for file in files:
        if file.as_posix() == f"{entry.package}/{entry.file}":
            return Path(str(file.locate()))
    raise WeightsError(f"{entry.label}: the installed package {entry.package} holds no {entry.file}")


def _fetch_from_hub(entry: Published) -> Path:
    """Takes the file from the hub's cache, or downloads it; an interrupted download is resumed."""
    try:
        import huggingface_hub as hub
    except ImportError:
        raise WeightsError(
            f"{entry.label} is downloaded from the Hugging Face hub: pip install huggingface_hub, "
            "or '.[hub]' in a checkout"
        ) from None
    cached = hub.try_to_load_from_cache(entry.hub, entry.file)
    if isinstance(cached, str):
        path = Path(cached)
        # The cache names a file by the checksum that the hub stated for it.
        _verify(path, entry.sha256 or path.resolve().name, entry)
        return path
    try:
        stated = hub.get_hf_file_metadata(hub.hf_hub_url(entry.hub, entry.file)).etag or ""
        path = Path(hub.hf_hub_download(entry.hub, entry.file))
    except Exception as error:  # The hub's client lets errors of several HTTP libraries through.
        first = (str(error).strip().splitlines() or [""])[0]
        raise WeightsError(
            f"{entry.label} could not be downloaded from {entry.hub} on the Hugging Face hub "
            f"({type(error).__name__}: {first[:160]}); check the network and call again: a download resumes, "
            "and works offline afterwards"
        ) from error
    _verify(path, entry.sha256 or stated, entry)
    return path


def _verify(path: Path, sha256: str, entry: Published) -> None:
    """Compares a file's checksum with the stated one; a downloaded file that differs is deleted.

    Raises:
        WeightsError: it differs, or none is known.
    """
    if len(sha256) != 64:
        raise WeightsError(f"{entry.label}: neither the table nor the hub states a SHA-256 of {path.name}")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual == sha256:
        return
    message = f"{entry.label}: {path} has SHA-256 {actual}; the published file has {sha256}"
    if entry.package:
        raise WeightsError(f"{message}; reinstall the package {entry.package}")
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise WeightsError(f"{message}; it was deleted: call again to download it")


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The English names of ImageNet's 1,000 classes, in the order of the logits.

    Source: the category names of torchvision's weights.
    """
    return tuple(CLASSES.read_text(encoding="utf-8").splitlines())
