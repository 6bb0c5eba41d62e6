"""`convatlas draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def draw_command(
    *networks: str,
    input: Annotated[str | None, Parameter(name="--input")] = None,
    style: str = "blocks",
    level: str = "block",
    show: str = "shapes,params,macs",
    theme: str = "light",
    title: str = "",
    scale: float = 2.0,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Draw a network from a trace of its forward.

    Args:
        networks: A name (`convatlas list`); or MODULE:FUNCTION of Python that makes any network, such as
            mypackage.mymodule:make_net; or an expression such as "conv 8 5x5 pad 2, relu, pool 2x2 /2".
        input: Height and width in px, or C,H,W; a named network's published size where not given.
        style: blocks (stages and blocks), volumes (feature maps as prisms) or graph (the wiring).
        level: stage, block or layer: what one box stands for.
        show: Which numbers: any of shapes, params, macs and rf (receptive field), with commas.
        theme: light, dark or print.
        title: Written on top; a name where not given.
        scale: PNG: px of the file for each px of the figure.
        out: Write to this file, whose name ends in .svg, .png or .pdf; NETWORK.svg where not given.
    """
    if not networks:
        raise ValueError('name a network, MODULE:FUNCTION or an expression such as "conv 96 11x11 /4"')
    from convatlas.cli.subject import find_subject, title_of
    from convatlas.drawing import draw

    subject = find_subject(networks[0], input)
    named, note = title_of(networks[0], subject)
    figure = draw(
        subject.net, subject.input_size, style=style, level=level, show=show.replace(" ", "").split(","),
        theme=theme, title=title or named, note=note,
    )  # fmt: skip
    path = out or Path(f"{_file_name(networks)}.svg")
    figure.save(path, scale=scale)
    print(f"wrote {path} ({figure.width}x{figure.height} px)")


def _file_name(networks: tuple[str, ...]) -> str:
    name = "-".join(networks)
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)[:80]
