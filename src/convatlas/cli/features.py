"""`convatlas features`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def features_command(
    network: str,
    /,
    *images: str,
    stage: int | None = None,
    pool: Literal["avg", "max", "none"] = "avg",
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    fps: float = 1.0,
    batch_size: int = 32,
    workers: int | None = None,
    device: str | None = None,
) -> int:
    """Write what a network sees in images: vectors to search, cluster or learn from, or feature maps.

    Without --out, one JSON object a line is printed. A file that cannot be used is named with its reason, and
    the exit code is 2.

    Args:
        network: Run folder, network with published weights, such as efficientnet_lite0, or file of weights.
        images: Image files, folders, patterns, films, or - for standard input.
        stage: Which feature map, counted from 0 as `create_model(out_indices=...)` does, or from the end by
            negative numbers; what goes into the last layer where not given.
        pool: How a map becomes a vector; none keeps the map.
        out: File that ends in .npz or .parquet.
        fps: Frames a second that are taken from a film.
        batch_size: Images that go through the network together.
        workers: Threads that read images; one for each core if not given.
        device: cpu or cuda; a GPU where there is one.
    """
    if not images:
        raise ValueError("name at least one image after the network")
    from convatlas.escape import plain
    from convatlas.predict.features import Feature, check_ending, describe, extract_features, write_features
    from convatlas.predict.load import load

    if out is not None:
        check_ending(out)
    predictor = load(network, batch_size=batch_size, workers=workers, device=device)
    net: Any = predictor.network
    kept: list[Feature] = []
    refused = 0
    for each in extract_features(predictor, images, stage=stage, pool=pool, fps=fps):
        if not isinstance(each, Feature):
            refused += 1
            print(f"convatlas: {plain(each.reason)}", file=sys.stderr)
        elif out is None:
            print(json.dumps(each.record()))
        else:
            kept.append(each)
    if out is not None and kept:
        what = describe(net, stage)
        write_features(kept, out, {"network": network, "layer": what, "pool": pool})
        shape = "x".join(map(str, kept[0].values.shape))
        print(f"{out}: {len(kept):,} images, {shape} numbers each ({what})")
    return 2 if refused else 0
