"""What a network sees in images, as numbers: its feature maps or the vector before its classifier."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from convatlas.blocks.head import global_pool_2d
from convatlas.escape import plain
from convatlas.files import write_atomic
from convatlas.models.network import Network
from convatlas.predict.inputs import Item, find_items
from convatlas.predict.outputs import Skipped, require_parquet
from convatlas.predict.predictor import Predictor
from convatlas.predict.prefetch import read_batches
from convatlas.predict.reading import prepared

Pool = Literal["avg", "max", "none"]
ENDINGS = (".npz", ".parquet")


@dataclasses.dataclass(frozen=True, eq=False)
class Feature:
    """What a network sees in one image.

    Attributes:
        image: as it was named.
        values: (C,) of float32, or the map (C, H, W).
        frame: of a film, counted from 0; None for an image.
    """

    image: str
    values: Tensor
    frame: int | None = None

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"image": plain(self.image), **frame, "features": self.values.tolist()}


def extract_features(
    predictor: Predictor,
    images: Any,
    *,
    stage: int | None = None,
    pool: Pool = "avg",
    fps: float | None = 1.0,
) -> Iterator[Feature | Skipped]:
    """Shows images to a network and hands out what it sees in each, in order.

    Args:
        predictor: holds a network of the atlas.
        images: as `Predictor.predict` takes them.
        stage: index in the network's `feature_info`, as `out_indices` of `create_model` counts: 4 is the last
            of a ResNet's five maps, -1 the last of any network; None for what goes into the last layer.
        pool: how a map becomes a vector: "avg", "max", or "none" for the map itself.
        fps: frames a second that are taken from a film; None for all.

    Raises:
        ValueError: there is no such stage or pooling, or the predictor holds no network of the atlas.
    """
    network = predictor.network
    if not isinstance(network, Network):
        raise ValueError("features come from a network of the atlas; an exported file shows its logits only")
    if pool not in get_args(Pool):
        raise ValueError(f"`pool`={pool!r}; expected 'avg', 'max' or 'none'")
    describe(network, stage)
    return _extract(predictor, network, find_items(images, fps), stage, pool)


def describe(network: Network[Any], stage: int | None) -> str:
    """Names what `extract` hands out: "stages.3, stage 4 of 0 to 4, stride 32".

    Raises:
        ValueError: there is no such stage.
    """
    if stage is None:
        return f"what goes into the last layer, {network.head_hidden_size:,} numbers"
    count = len(network.feature_info)
    if not -count <= stage < count:
        names = ", ".join(f"{i} {feature.module}" for i, feature in enumerate(network.feature_info))
        raise ValueError(f"`stage`={stage}: {network.name} has {count} feature maps: {names}; -1 is the last")
    feature = network.feature_info[stage]
    return f"{feature.module}, stage {stage % count} of 0 to {count - 1}, stride {feature.stride} px"


def write_features(features: list[Feature], path: Path, facts: dict[str, str]) -> None:
    """Writes features into a file.

    A `.npz` holds `images` (N,) and `features` (N, C) or (N, C, H, W), and `frames` (N,) with -1 for
    images. A `.parquet` holds the same as columns `image`, `frame` and `features`, maps flattened.

    Args:
        features: of one network and stage, at least one.
        path: ends in .npz or .parquet.
        facts: what else the file says: entries of the `.npz`, or of the schema's metadata.

    Raises:
        ValueError: the name ends otherwise, there are no features, or pyarrow is missing.
    """
    check_ending(path)
    if not features:
        raise ValueError(f"{path}: there are no features to write")
    names = [plain(feature.image) for feature in features]
    values = torch.stack([feature.values for feature in features]).numpy()
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        frames = np.array([-1 if each.frame is None else each.frame for each in features], dtype=np.int64)
        columns: dict[str, Any] = {"images": np.array(names), "frames": frames, "features": values, **facts}
        np.savez(buffer, **columns)
    else:
        arrow, parquet = require_parquet()
        flat = values.reshape(len(values), -1)
        kind = arrow.list_(arrow.float32(), flat.shape[1])
        columns = {
            "image": arrow.array(names, arrow.string()),
            "frame": arrow.array([feature.frame for feature in features], arrow.int64()),
            "features": arrow.FixedSizeListArray.from_arrays(flat.ravel(), type=kind),
        }
        shape = {"shape": ",".join(map(str, values.shape[1:]))}
        parquet.write_table(arrow.table(columns).replace_schema_metadata(facts | shape), buffer)
    write_atomic(path, buffer.getvalue())


def check_ending(path: Path) -> None:
    """Refuses a file that features cannot be written into, before any is computed.

    Raises:
        ValueError: the name ends otherwise, or pyarrow is missing for a `.parquet`.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"`out`={str(path)!r}; expected a name that ends in {' or '.join(ENDINGS)}")
    if path.suffix == ".parquet":
        require_parquet()


def _extract(
    predictor: Predictor, network: Network[Any], items: Iterable[Item], stage: int | None, pool: Pool
) -> Iterator[Feature | Skipped]:
    prepare = functools.partial(prepared, transform=predictor.transform)
    for batch in read_batches(items, prepare, predictor.batch_size, predictor.workers):
        rows: dict[int, Tensor] = {}
        if batch.pixels:
            views = [image if image.dim() == 4 else image[None] for image in batch.pixels.values()]
            images = predictor.normalise(torch.cat(views).to(predictor.device))
            parts = _seen(network, images, stage, pool).split(list(map(len, views)))
            rows = {place: part.mean(dim=0) for place, part in zip(batch.pixels, parts, strict=True)}
        for place, item in enumerate(batch.items):
            if place in rows:
                yield Feature(item.name, rows[place], item.frame)
            else:
                yield Skipped(item.name, batch.reasons[place], item.frame, item.seconds)


@torch.inference_mode()
def _seen(network: Network[Any], images: Tensor, stage: int | None, pool: Pool) -> Tensor:
    if stage is None:
        values = network.forward_head(network.forward_features(images), pre_logits=True)
    else:
        values = network.forward_stages(images)[stage]
    if values.ndim == 4 and pool != "none":
        values = global_pool_2d(values, pool)
    return values.float().cpu().clone()
