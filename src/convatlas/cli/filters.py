"""`convatlas filters`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def filters_command(
    network: str,
    /,
    *,
    layer: str | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("filters.png"),
    theme: str = "light",
    scale: float = 2.0,
) -> None:
    """Draw the kernels of a network's first convolution, or of another, as tiles.

    Args:
        network: Run folder, network with published weights, such as efficientnet_lite0, or file of weights.
        layer: Path of a convolution, such as stages.0.0.conv; the first where not given.
        out: File that ends in .svg, .png or .pdf.
        theme: light, dark or print.
        scale: PNG: px of the file for each px of the figure.
    """
    from convatlas.escape import plain
    from convatlas.plots.filters import draw_filters
    from convatlas.predict.load import load_network

    net = load_network(network)
    figure = draw_filters(net, layer=layer, title=net.name or network, theme=theme)
    figure.save(out, scale=scale)
    print(f"wrote {plain(out)} ({figure.width}x{figure.height} px)")
