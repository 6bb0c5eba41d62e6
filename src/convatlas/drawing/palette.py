"""Colours and line widths of figures, in three themes. Classes of SVG elements are the tokens."""

from __future__ import annotations

from dataclasses import dataclass

THEMES = ("light", "dark", "print")
FONTS = "'Helvetica Neue',Helvetica,Arial,'Liberation Sans','Nimbus Sans',Arimo,'DejaVu Sans',sans-serif"
# Families of operations, in the order of the legend, with the words that name them there.
FAMILIES = {
    "conv": "convolution",
    "pw": "1×1 convolution",
    "dw": "depthwise, separable",
    "pool": "pooling",
    "linear": "linear",
    "gate": "gate",
    "act": "identity or other",
    "io": "input, output",
}


# Families of networks: colour in light and print, colour in dark, and matplotlib's name of the mark.
NETWORKS = {
    "lenet": ("#171D25", "#EDF2F8", "o"),
    "alexnet": ("#9198A4", "#8E959C", "s"),
    "vgg": ("#E4A100", "#F0B819", "^"),
    "inception": ("#51276D", "#CB98FF", "D"),
    "resnet": ("#2F58AA", "#3F7EEB", "o"),
    "densenet": ("#21856C", "#24D3B7", "v"),
    "mobilenet": ("#7EC480", "#A5FF8B", "P"),
    "nasnet": ("#8E043C", "#BB4161", "*"),
    "efficientnet": ("#CF5816", "#F87040", "s"),
    "other": ("#566170", "#9DA8B6", "X"),
}


@dataclass(frozen=True)
class Palette:
    """The colours of one theme, as `#RRGGBB`.

    Attributes:
        background: of the figure.
        frame: of a stage.
        ink: of text and sums.
        muted: of secondary text.
        hair: of thin lines.
        flow: of arrows and bars.
        skip: of what jumps over something.
        families: (fill, stroke) by family of operation.
        networks: colour by family of networks.
    """

    background: str
    frame: str
    ink: str
    muted: str
    hair: str
    flow: str
    skip: str
    families: dict[str, tuple[str, str]]
    networks: dict[str, str]


_LIGHT_NETWORKS = {name: light for name, (light, _, _) in NETWORKS.items()}
_DARK_NETWORKS = {name: dark for name, (_, dark, _) in NETWORKS.items()}
_LIGHT = Palette(
    "#FFFFFF", "#F4F6F9", "#17202B", "#566170", "#CBD2DB", "#46515F", "#C2331C",
    {
        "conv": ("#BCD7F8", "#2B62BE"),
        "pw": ("#F2F7FD", "#2B62BE"),
        "dw": ("#94D9C6", "#0B8F86"),
        "pool": ("#F3DF9E", "#A97800"),
        "linear": ("#CBB4E2", "#5A2590"),
        "gate": ("#F8CBDD", "#8A1748"),
        "act": ("#E4E8EC", "#5D6670"),
        "io": ("#FFFFFF", "#566170"),
    },
    _LIGHT_NETWORKS,
)  # fmt: skip
_DARK = Palette(
    "#10161D", "#171F28", "#E8ECF1", "#9DA8B6", "#36414E", "#B4BECA", "#FF8558",
    {
        "conv": ("#143A78", "#6396F2"),
        "pw": ("#131F30", "#6396F2"),
        "dw": ("#00574A", "#4FE0BE"),
        "pool": ("#6A4B00", "#F5C945"),
        "linear": ("#5E3A78", "#E3A6F0"),
        "gate": ("#5A0F2A", "#E0708F"),
        "act": ("#343A41", "#9FA8B2"),
        "io": ("#10161D", "#9DA8B6"),
    },
    _DARK_NETWORKS,
)  # fmt: skip
_PRINT = Palette(
    "#FFFFFF", "#F5F5F5", "#000000", "#3D3D3D", "#B5B5B5", "#000000", "#000000",
    {
        "conv": ("#CBDCF0", "#000000"),
        "pw": ("#FFFFFF", "#000000"),
        "dw": ("#9CCFC0", "#000000"),
        "pool": ("#F5E7B4", "#000000"),
        "linear": ("#B9A6D2", "#000000"),
        "gate": ("#C77D97", "#000000"),
        "act": ("#EDEDED", "#000000"),
        "io": ("#FFFFFF", "#000000"),
    },
    _LIGHT_NETWORKS,
)  # fmt: skip
PALETTES = {"light": _LIGHT, "dark": _DARK, "print": _PRINT}


def rules(palette: Palette) -> dict[str, str]:
    """The CSS declarations of every class."""
    p = palette
    css = {name: f"fill:{fill};stroke:{line};stroke-width:1.25" for name, (fill, line) in p.families.items()}
    for size in (11, 12, 14, 20):
        css[f"t{size}"] = f"font-size:{size}px"
        css[f"t{size}b"] = f"font-size:{size}px;font-weight:700"
    css |= {
        "m": f"fill:{p.muted}",
        "v": f"fill:{p.skip}",
        "halo": f"fill:none;stroke:{p.background};stroke-width:4px;stroke-linejoin:round",
        "flow": f"fill:none;stroke:{p.flow};stroke-width:1.5",
        "flowh": f"fill:{p.flow}",
        "skip": f"fill:none;stroke:{p.skip};stroke-width:2",
        "skiph": f"fill:{p.skip}",
        "skipd": f"fill:none;stroke:{p.skip};stroke-width:2;stroke-dasharray:6 4",
        "skipb": f"fill:{p.background};stroke:{p.skip};stroke-width:1.25;stroke-dasharray:6 4",
        "join": f"fill:{p.background};stroke:{p.ink};stroke-width:1.5",
        "joinl": f"fill:none;stroke:{p.ink};stroke-width:1.5",
        "hair": f"fill:none;stroke:{p.hair};stroke-width:1",
        "hair2": f"fill:none;stroke:{p.muted};stroke-width:1;stroke-dasharray:2 3",
        "frame": f"fill:{p.frame}",
        "bg": f"fill:{p.background}",
        "bar": f"fill:{p.flow}",
        "track": f"fill:{p.hair};fill-opacity:.55",
        "ray": f"fill:none;stroke:{p.skip};stroke-opacity:.75",
        "filt": f"fill:{p.skip};fill-opacity:.18;stroke:{p.skip};stroke-width:1.25",
        "front": "fill-opacity:.8",
        "top": "fill-opacity:.55",
        "thin": f"stroke:{p.hair};stroke-width:1",
        "s0": "fill-opacity:.15",
        "s1": "fill-opacity:.35",
        "s2": "fill-opacity:.55",
        "s3": "fill-opacity:.75",
        "s4": "fill-opacity:1",
        "pad": f"fill:{p.frame};stroke:{p.hair};stroke-width:1;stroke-dasharray:2 2",
    }
    # A family of networks, filled; with the background around it, as a mark on a line; as a bubble.
    for name, colour in p.networks.items():
        css[f"n-{name}"] = f"fill:{colour}"
        css[f"o-{name}"] = f"fill:none;stroke:{colour};stroke-width:1.5"
    # On images, which have any colour: a line in the background's colour over a wider one in the ink's.
    css["over"] = f"fill:none;stroke:{p.background};stroke-width:1.25"
    css["under"] = f"fill:none;stroke:{p.ink};stroke-width:2.5;stroke-opacity:.6"
    css["lead"] = f"fill:none;stroke:{p.muted};stroke-width:.75"
    css["ring"] = f"stroke:{p.background};stroke-width:2"
    css["bubble"] = f"fill-opacity:.55;stroke:{p.background};stroke-width:1"
    return css
