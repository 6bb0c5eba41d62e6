"""Everything before the first step: what can be wrong is found here, while nothing has been written yet."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.catalog.cards import find_card, list_models
from convatlas.data.crops import TestFit, TrainFit
from convatlas.data.preprocessing import in_memory, make_transform, px_for
from convatlas.data.sets import ImageSet, Samples, Source, choose_rows, stratified_mask
from convatlas.data.sources import load_source, source_from
from convatlas.data.transforms import Transform
from convatlas.errors import most_alike
from convatlas.models.network import check_count
from convatlas.runs.model_spec import ModelSpec
from convatlas.training.batch_order import BatchOrder
from convatlas.training.cpu.choose import ExecutionPlan, choose_execution
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import EvalTransform
from convatlas.training.head_probe import check_probed
from convatlas.training.spec import TrainSpec
from convatlas.weights.published import find_published

# Pixels that a batch of test images has at most.
TEST_PIXELS = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainSetup:
    """A training that is ready to begin.

    Attributes:
        spec: what was asked for.
        net: with its first weights, on the device.
        model: how it was built; None where it came from Python.
        source: the data, at the size that they are trained at where all have one; its `train` is what is
            learnt from.
        validation: what the recipe holds back of the training images; None for nothing.
        batch_order: the order of the samples.
        eval_transform: how test images are shown.
        transform: brings any image to what the network saw.
        px: a side of the images, where images have any size; None where all have one.
        ranks: the processes.
        execution: how it is computed.
        workers: processes that decode images.
    """

    spec: TrainSpec
    net: nn.Module
    model: ModelSpec | None
    source: Source
    validation: Samples | None
    batch_order: BatchOrder
    eval_transform: EvalTransform
    transform: Transform
    px: int | None
    ranks: Ranks
    execution: ExecutionPlan
    workers: int

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.source.class_names)

    def train_fit(self, epoch: int) -> TrainFit | None:
        """Brings the images of an epoch to size; None where all have it and nothing is done to each."""
        augment = self.spec.recipe.augment
        in_memory = isinstance(self.source.train, ImageSet)
        if not augment.per_image and (in_memory or (self.px is None and not self.spec.recipe.sizes)):
            return None
        transform = self.transform
        return TrainFit(
            augment,
            self.spec.seed,
            epoch,
            transform.crop_pct,
            transform.interpolation,
            transform.fit,
            transform.fill,
        )

    def px_at(self, step: int) -> int | None:
        """A side of the images of a step; None for as they are."""
        return self.spec.recipe.size_at(step, self.batch_order.num_steps) or self.px


def make_source(
    data: str | Source | Any,
    test_data: Any,
    spec: TrainSpec,
    data_dir: str | Path | None,
    note: Callable[[str], None],
) -> Source:
    """The data by their name, or made of datasets that came from Python.

    Args:
        data: a name, a source, or a map-style dataset.
        test_data: a map-style dataset to measure on, with one in `data`.
        spec: what is asked for.
        data_dir: where small data sets lie.
        note: is told what takes long.

    Raises:
        ValueError: the data cannot be used; the message says why.
    """
    if test_data is not None and isinstance(data, str | Source):
        raise ValueError("`test_data` goes with a dataset; data by name have a test split of their own")
    if isinstance(data, Source):
        return data
    if isinstance(data, str):
        folder = None if data_dir is None else Path(data_dir)
        return load_source(data, data_dir=folder, on_bad_image=spec.on_bad_image, note=note)
    return source_from(data, test_data)


def make_setup(
    spec: TrainSpec,
    network: nn.Module | None,
    source: Source,
    ranks: Ranks,
    workers: int | None,
    replaced: Sequence[str] | None = None,
) -> TrainSetup:
    """Builds what a training needs, and finds what cannot work.

    Args:
        spec: what is asked for.
        network: from Python; None for the one that `spec` names.
        source: the data.
        ranks: the processes.
        workers: processes that decode images, in each of `ranks`; None for what fits this machine.
        replaced: names of our own convolutions that the training began with; None where it begins.

    Raises:
        UnknownNameError: a name does not exist; names the nearest.
        ValueError: something does not fit; names what, and what would.
    """
    card = find_card(spec.network) if network is None else None
    _check_labels(source)
    published = None if spec.pretrained is False else find_published(spec.network, spec.pretrained)
    source = in_memory(source, spec.input_size, spec.fit)
    px = px_for(source, spec.input_size, card)
    transform = make_transform(source, px, card, published, spec.fit)
    source, validation = _hold_back(source, spec)
    model = None if network is not None else _model_spec(spec, source, transform)
    torch.manual_seed(spec.seed)
    net = model.build(pretrained=spec.pretrained) if model is not None else network
    assert net is not None
    net.to(ranks.device)
    _check_net(net, spec, source, transform)
    if spec.recipe.optimizer == "lbfgs":
        check_probed(net, spec.network)
    batch_order = _make_batch_order(spec, source, net, ranks)
    if workers is None:
        workers = 0 if isinstance(source.train, ImageSet) else default_workers(ranks)
    check_count("workers", workers, least=0)
    fit = None
    if px is not None:
        how = (transform.crop_pct, transform.interpolation, transform.fit, transform.fill)
        fit = TestFit(px, *how)
    height, width = transform.input_size[1:]
    batch_size = min(256, max(16, TEST_PIXELS // (height * width)))
    return TrainSetup(
        spec=spec,
        net=net,
        model=model,
        source=source,
        validation=validation,
        batch_order=batch_order,
        eval_transform=EvalTransform(
            transform.mean, transform.std, fit, batch_size, workers, spec.on_bad_image
        ),
        transform=transform,
        px=px,
        ranks=ranks,
        execution=choose_execution(
            ranks.device, exact=spec.exact, compile=spec.compile, net=net, replaced=replaced
        ),
        workers=workers,
    )


def _hold_back(source: Source, spec: TrainSpec) -> tuple[Source, Samples | None]:
    """The data without the images that the recipe validates by, and these.

    Raises:
        ValueError: there are too few images for one of them to be held back.
    """
    share = spec.recipe.validation
    if share == 0.0:
        return source, None
    mask = stratified_mask(source.train.labels, share=share, seed=spec.seed).numpy()
    if not mask.any() or mask.all():
        most = int(torch.bincount(source.train.labels).max())
        raise ValueError(
            f"`validation`={share!r}: holds back {'all' if mask.all() else 'none'} of the {len(mask)} "
            f"training images, of which the largest class has {most}; set it to 0, or add images"
        )
    rest, held = (choose_rows(source.train, np.flatnonzero(each)) for each in (~mask, mask))
    return dataclasses.replace(source, train=rest), held


def default_workers(ranks: Ranks) -> int:
    """Processes that decode images for each training process, from the cores of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // ranks.local_size
    return max(1, min(2, share) if ranks.device.type == "cpu" else min(8, share - 1))


def _model_spec(spec: TrainSpec, source: Source, transform: Transform) -> ModelSpec:
    recipe = spec.recipe
    rates = {"drop_rate": recipe.drop_rate, "drop_path_rate": recipe.drop_path_rate}
    return ModelSpec(
        name=spec.network,
        transform=transform,
        class_names=tuple(source.class_names),
        overrides={name: rate for name, rate in rates.items() if rate is not None} | dict(spec.model),
    )


def _check_labels(source: Source) -> None:
    count = len(source.class_names)
    for name, part in (("training", source.train), ("test", source.test)):
        if len(part) == 0:
            raise ValueError(f"`data`={source.name!r}: has no {name} images")
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= count:
            raise ValueError(
                f"`data`={source.name!r}: {name} labels go from {low} to {high}; "
                f"expected 0 to {count - 1} for its {count} classes"
            )
    if count < 2:
        raise ValueError(f"`data`={source.name!r}: has {count} class; a network tells at least two apart")


def _make_batch_order(spec: TrainSpec, source: Source, net: nn.Module, ranks: Ranks) -> BatchOrder:
    recipe = spec.recipe
    batch_order = BatchOrder(
        num_samples=len(source.train),
        batch_size=recipe.batch_size,
        num_epochs=recipe.epochs,
        seed=spec.seed,
        accumulate=recipe.accumulate,
        mixes=recipe.augment.mixes,
    )
    # Training by the statistics of one image is no training, and torch refuses it where maps are 1x1.
    least = 2 if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules()) else 1
    if batch_order.smallest_part(ranks) < least:
        size, rows = batch_order.bounds(0)[1], ranks.world_size * recipe.accumulate
        raise ValueError(
            f"`batch_size`={recipe.batch_size}: batches of {size} of the {len(source.train)} training images "
            f"in {rows} parts (processes times `accumulate`); at least {rows * least} images are needed, "
            f"{least} for each part"
        )
    return batch_order


def _check_net(net: nn.Module, spec: TrainSpec, source: Source, transform: Transform) -> None:
    """Shows the network two images, of the smallest size that it will see."""
    chans, height, width = transform.input_size
    least = getattr(net, "min_input_size", 1)
    sizes = [px for _, px in spec.recipe.sizes]
    if min(height, width) < least:
        raise ValueError(_too_small(spec, source, (height, width), least))
    if sizes and min(sizes) < least:
        raise ValueError(f"`sizes`: {min(sizes)} px is too small; {spec.network} needs at least {least} px")
    device = next(net.parameters()).device
    shape = (2, chans, height, width)
    training = net.training
    try:
        with torch.no_grad():
            logits = net.eval()(torch.zeros(shape, device=device))
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{spec.network}: cannot take images of shape {shape}: {first[:200]}") from error
    finally:
        net.train(training)
    count = len(source.class_names)
    if not isinstance(logits, Tensor) or logits.shape != (2, count):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{spec.network}: gives {given} for two images; `data`={source.name!r} has {count} classes, "
            f"so expected (2, {count})"
        )


def _too_small(spec: TrainSpec, source: Source, size: tuple[int, int], least: int) -> str:
    if spec.input_size is not None:
        return f"{spec.network}: `input_size`={spec.input_size} is too small; at least {least} px are needed"
    return (
        f"{spec.network} needs images of {least}x{least} px at least; those of `data`={source.name!r} are "
        f"{size[0]}x{size[1]}: train {_small_variant(spec.network)}, which is made for small images, or "
        f"enlarge them with `--input {least}` (`input_size={least}`)"
    )


def _small_variant(network: str) -> str:
    """The network for small images that is most like this one, of its own family if there is one."""
    family = re.match("[a-z]+", network)
    alike = [name for name in list_models("*_cifar*") if family and name.startswith(family[0])]
    return most_alike(f"{network}_cifar", alike) if alike else "resnet20_cifar"
