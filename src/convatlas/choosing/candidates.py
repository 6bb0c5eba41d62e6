"""Networks that may be taken for some images: published, from runs, and small ones from scratch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from convatlas.benchmark.bench import find_names
from convatlas.catalog.index import find_entry, short_amount
from convatlas.choosing.choose import Limits
from convatlas.data.sets import Source
from convatlas.data.transforms import Transform
from convatlas.models.network import Network
from convatlas.predict.load import load_network
from convatlas.runs.run import RECORD
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import EvalTransform
from convatlas.training.setup import make_setup
from convatlas.training.spec import make_spec
from convatlas.weights.published import all_published, find_published, is_here

Kind = Literal["published", "run", "scratch"]

SMALL_PX, SMALL_SHOWN_PX = 64, 128
"""Images of at most so many px a side are shown to published networks at 128 px."""
FROM_SCRATCH = ("lenet5", "resnet20_cifar")
"""Networks that small images are enough for, and few minutes."""


@dataclasses.dataclass(frozen=True)
class NetworkOption:
    """A network that may be taken.

    Attributes:
        network: name in the registry, or the folder of a run.
        kind: where its weights come from.
        px: a side of the images that it is shown; None for as they are.
        params: of the network for these classes.
        macs: multiply-adds for one image at `px`.
        input_size: C, H, W.
    """

    network: str
    kind: Kind
    px: int | None
    params: int
    macs: float
    input_size: tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A network, ready to compute features.

    Attributes:
        net: with its weights.
        source: the images as it is shown them, where all have one size.
        eval_transform: how it is shown them.
    """

    net: Network[Any]
    source: Source
    eval_transform: EvalTransform


def find_options(
    names: str | Sequence[str], source: Source, limits: Limits, download: bool
) -> tuple[list[NetworkOption], dict[str, tuple[str, ...]]]:
    """The networks that may be taken, the smallest first, and why others may not.

    Args:
        names: names and patterns, and folders of runs.
        source: the images.
        limits: on parameters and MACs; that on latency is looked at later.
        download: whether weights may be fetched from the hub.

    Raises:
        UnknownNameError: no network has such a name.
    """
    given = [names] if isinstance(names, str) else list(names)
    runs = [name for name in given if (Path(name) / RECORD).is_file()]
    patterns = [name for name in given if name not in runs]
    options: list[NetworkOption] = [_run_option(run, len(source.class_names)) for run in runs]
    dropped: dict[str, tuple[str, ...]] = {}

    def drop(reason: str, name: str) -> None:
        dropped[reason] = (*dropped.get(reason, ()), name)

    for name in find_names(patterns) if patterns else []:
        scratch = name in FROM_SCRATCH and _is_small(source)
        if name not in all_published():
            if scratch:
                options.append(_option(name, "scratch", source))
            else:
                drop("without published weights", name)
        elif download or is_here(find_published(name)):
            options.append(_option(name, "published", source))
        else:
            drop("whose weights are not here (--download fetches them)", name)
    fitting: list[NetworkOption] = []
    for option in sorted(options, key=lambda each: (each.macs, each.params)):
        reason = _reason(option, limits)
        if reason:
            drop(reason, option.network)
        else:
            fitting.append(option)
    return fitting, dropped


def open_option(option: NetworkOption, source: Source) -> Opened:
    """Loads a network of kind "published" or "run" with its weights.

    Raises:
        WeightsError: the weights cannot be had.
        ValueError: the network does not fit the images.
    """
    ranks = Ranks(torch.device("cpu"))
    if option.kind == "run":
        net = load_network(option.network)
        transform = net.transform
        assert isinstance(transform, Transform)
        how = EvalTransform(transform.mean, transform.std, _Fitted(transform), 64)
        return Opened(net, source, how)
    spec = make_spec(option.network, source, "probe", {}, pretrained=True, input_size=option.px, exact=True)
    setup = make_setup(spec, None, source, ranks, 0)
    assert isinstance(setup.net, Network)
    return Opened(setup.net, setup.source, setup.eval_transform)


@dataclasses.dataclass(frozen=True)
class _Fitted:
    """A run's transform as reading batches takes it."""

    transform: Transform

    def __call__(self, image: Any, sample: int, px: int | None) -> Any:
        from convatlas.data.crops import with_channels

        if self.transform.kind == "digit" and image.shape[1:] != self.transform.input_size[1:]:
            return self.transform.pixels(with_channels(image, 3))
        return self.transform.fitted(with_channels(image, self.transform.input_size[0]))


def _is_small(source: Source) -> bool:
    size = source.image_size
    return size is not None and max(size[1:]) <= SMALL_PX


def _option(name: str, kind: Kind, source: Source) -> NetworkOption:
    entry = find_entry(name)
    chans = 3 if source.image_size is None else source.image_size[0]
    if kind == "scratch":
        assert source.image_size is not None
        side = max(32, *source.image_size[1:])
        px = None if source.image_size[1:] == (side, side) else side
        size = (chans, side, side)
    else:
        size = find_published(name).input_size
        px = SMALL_SHOWN_PX if _is_small(source) else size[1]
        size = (chans, px, px)
    count = _count_params(name, chans, len(source.class_names))
    scale = size[1] * size[2] / (entry.input_size[1] * entry.input_size[2])
    return NetworkOption(name, kind, px, count, entry.macs * scale, size)


def _run_option(run: str, num_classes: int) -> NetworkOption:
    net = load_network(run)
    transform = net.transform
    assert isinstance(transform, Transform)
    size = transform.input_size
    head = (num_classes - net.num_classes) * (net.head_hidden_size + 1)
    params = sum(p.numel() for p in net.parameters()) + head
    entry = find_entry(net.name)
    scale = size[1] * size[2] / (entry.input_size[1] * entry.input_size[2])
    return NetworkOption(os.fspath(run), "run", None, params, entry.macs * scale, size)


def _count_params(name: str, chans: int, num_classes: int) -> int:
    from convatlas.models.registry import create_model

    with torch.device("meta"):
        net = create_model(name, in_chans=chans, num_classes=num_classes)
    own = sum(p.numel() for p in net.parameters())
    return own - sum(p.numel() for p in getattr(net, "aux_heads", torch.nn.ModuleList()).parameters())


def _reason(option: NetworkOption, limits: Limits) -> str:
    if limits.max_params is not None and option.params > limits.max_params:
        return f"above {short_amount(limits.max_params)} parameters"
    if limits.max_macs is not None and option.macs > limits.max_macs:
        return f"above {short_amount(limits.max_macs)} MACs"
    return ""
