"""`convatlas maps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def maps_command(
    network: str,
    /,
    *images: str,
    stage: int = -1,
    units: int = 32,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    theme: str = "light",
    format: Annotated[str | None, Parameter(name="--format")] = None,
    scale: float = 2.0,
    fps: float = 1.0,
    device: str | None = None,
) -> int:
    """Draw what a stage of a network sees in images: its feature maps, the strongest units first.

    A file that cannot be used is named with its reason, and the exit code is 2.

    Args:
        network: Run folder, network with published weights, such as efficientnet_lite0, or file of weights.
        images: Image files, folders, patterns, videos, or - for standard input.
        stage: Which feature map, counted from 0 as in `convatlas features`, or from the end by negative
            numbers.
        units: How many units are drawn.
        out: For one image a file that ends in .svg, .png or .pdf (maps.png where not given); for several a
            folder (maps where not given), in which each has a file of its name.
        theme: light, dark or print.
        format: Of the files in a folder: png, svg or pdf.
        scale: PNG: px of the file for each px of the figure.
        fps: Frames a second that are taken from a video.
        device: cpu or cuda; a GPU where there is one.
    """
    if not images:
        raise ValueError("name at least one image after the network")
    from convatlas.cli.save_each import save_each
    from convatlas.escape import plain
    from convatlas.predict.load import load
    from convatlas.predict.maps import FeatureMaps, map_each
    from convatlas.predict.out_files import OutFiles

    files = OutFiles(out, images, format, alone="maps", folder="maps")
    predictor = load(network, workers=1, device=device)

    def save(found: FeatureMaps) -> str:
        path = found.figure(units=units, theme=theme).save(files.path(found.image, found.frame), scale=scale)
        return f"{plain(found.image)}: {plain(path)} ({found.stage}; strongest unit {found.order[0]})"

    return save_each(map_each(predictor, images, stage=stage, fps=fps), save)
