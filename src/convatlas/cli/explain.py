"""`convatlas explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def explain_command(
    network: str,
    /,
    *images: str,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    method: str = "grad-cam",
    stage: int | None = None,
    window: int | None = None,
    check: bool = True,
    theme: str = "light",
    format: Annotated[str | None, Parameter(name="--format")] = None,
    scale: float = 2.0,
    fps: float = 1.0,
    device: str | None = None,
) -> int:
    """Draw which places of images speak for a class, and say whether that depends on the weights.

    A file that cannot be used is named with its reason, and the exit code is 2.

    Args:
        network: Run folder, network with published weights, such as efficientnet_lite0, or file of weights.
        images: Image files, folders, patterns, videos, or - for standard input.
        out: For one image a file that ends in .svg, .png or .pdf (cam.png where not given); for several a
            folder (explained where not given), in which each has a file of its name.
        class_name: One of the network's classes; each image's most likely one where not given.
        method: grad-cam, grad-cam++, hirescam or occlusion.
        stage: Which feature map, as in `convatlas features`; the last that has more than one place where not
            given.
        window: For occlusion: side of the covered square in px of the network's input; a quarter of it where
            not given.
        check: Compare each map with those of random weights: a map that they give too shows the image, not
            what was learnt.
        theme: light, dark or print.
        format: Of the files in a folder: png, svg or pdf.
        scale: PNG: px of the file for each px of the figure.
        fps: Frames a second that are taken from a video.
        device: cpu or cuda; a GPU where there is one.
    """
    if not images:
        raise ValueError("name at least one image after the network")
    from convatlas.cli.save_each import save_each
    from convatlas.predict.explain import Explanation, explain_each
    from convatlas.predict.load import load
    from convatlas.predict.out_files import OutFiles

    files = OutFiles(out, images, format, alone="cam", folder="explained")
    predictor = load(network, workers=1, device=device)

    def save(found: Explanation) -> str:
        path = found.figure(theme=theme).save(files.path(found.image, found.frame), scale=scale)
        return found.line(str(path))

    explained = explain_each(
        predictor,
        images,
        class_name=class_name,
        stage=stage,
        method=method,
        window=window,
        check=check,
        fps=fps,
    )
    return save_each(explained, save)
