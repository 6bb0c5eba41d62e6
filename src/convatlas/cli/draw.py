"""`convatlas draw`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from convatlas.drawing import Figure

LESSONS = ("padding", "receptive-field", "unrolled")


def draw_command(
    *networks: str,
    input: Annotated[str | None, Parameter(name="--input")] = None,
    style: str = "blocks",
    level: str = "block",
    module: str = "",
    show: str = "shapes,params,macs",
    theme: str = "light",
    title: str = "",
    lesson: str = "",
    kernel: int | None = None,
    pad: int | None = None,
    stride: int = 1,
    count: int = 3,
    scale: float = 2.0,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Draw networks from a trace of their forward, or a figure of a lesson.

    Args:
        networks: A name (`convatlas list`); or MODULE:FUNCTION of Python that makes any network, such as
            mypackage.mymodule:make_net; or an expression such as "conv 8 5x5 pad 2, relu, pool 2x2 /2".
            Several are drawn side by side, layer by layer.
        input: Height and width in px, or C,H,W; a named network's published size where not given.
        style: blocks (stages and blocks), volumes (feature maps as prisms) or graph (the wiring).
        level: stage, block or layer: what one box stands for.
        module: For graph: the module whose wiring is drawn, such as stages.0.1; with commas for several
            networks.
        show: Which numbers: any of shapes, params, macs and rf (receptive field), with commas.
        theme: light, dark or print.
        title: Written on top; the network's name where not given.
        lesson: Instead of networks: padding, receptive-field or unrolled (residual blocks).
        kernel: For lessons: height and width of the window.
        pad: For padding: zeros on each side; what keeps the size where not given.
        stride: For padding: of the window.
        count: For receptive-field: convolutions; for unrolled: blocks.
        scale: PNG: px of the file for each px of the figure.
        out: Write to this file, whose name ends in .svg, .png or .pdf; NETWORK.svg where not given.
    """
    if bool(networks) == bool(lesson):
        raise ValueError(
            'name a network, MODULE:FUNCTION or an expression such as "conv 96 11x11 /4"; or --lesson'
        )
    if lesson:
        figure = _lesson(lesson, input, kernel, pad, stride, count, theme)
    else:
        options = {"style": style, "level": level, "theme": theme, "module": module, "show": show}
        figure = _networks(networks, input, title, options)
    path = out or Path(f"{_file_name(networks or (lesson,))}.svg")
    figure.save(path, scale=scale)
    print(f"wrote {path} ({figure.width}x{figure.height} px)")


def _networks(networks: tuple[str, ...], input: str | None, title: str, options: dict[str, str]) -> Figure:
    from convatlas.cli.subject import find_subject, title_of
    from convatlas.drawing import draw

    subjects = [find_subject(network, input) for network in networks]
    sizes = list(dict.fromkeys(subject.input_size for subject in subjects))
    if len(sizes) > 1:
        shown = " and ".join(map(str, sizes))
        raise ValueError(f"the networks take inputs of {shown}; give one to all, such as --input 224")
    titles = [title_of(network, subject) for network, subject in zip(networks, subjects, strict=True)]
    return draw(
        [subject.net for subject in subjects],
        sizes[0],
        style=options["style"],
        level=options["level"],
        show=options["show"].replace(" ", "").split(","),
        theme=options["theme"],
        title=[title] if title else [name for name, _ in titles],
        note=titles[0][1],
        module=options["module"].replace(" ", "").split(","),
    )


def _lesson(
    lesson: str, input: str | None, kernel: int | None, pad: int | None, stride: int, count: int, theme: str
) -> Figure:
    from convatlas.cli.subject import read_input
    from convatlas.drawing import draw_padding, draw_receptive_field, draw_unrolled

    if lesson == "padding":
        size = 28 if input is None else read_input(input)
        side = size if isinstance(size, int) else size[-1]
        return draw_padding(side, kernel or 5, pad=pad, stride=stride, theme=theme)
    if lesson == "receptive-field":
        return draw_receptive_field(kernel or 3, count, theme=theme)
    if lesson == "unrolled":
        return draw_unrolled(count, theme=theme)
    raise ValueError(f"`--lesson`={lesson!r}; expected one of {', '.join(LESSONS)}")


def _file_name(networks: tuple[str, ...]) -> str:
    name = "-".join(networks)
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)[:80]
