"""Figures of networks: their numbers, their structure and their geometry."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from convatlas import create_model
from convatlas.catalog.cards import find_card, list_models
from convatlas.drawing import draw
from made_figures import UNet, Wibble, faults, texts

SVG = "{http://www.w3.org/2000/svg}"


def test_no_label_of_any_network_overlaps_or_is_cut():
    wrong: dict[str, list[str]] = {}
    for name in list_models():
        with torch.device("meta"):
            net = create_model(name)
        wrong[name] = faults(draw(net, find_card(name).input_size, level="stage"))
    assert {name: found for name, found in wrong.items() if found} == {}


SAMPLE = (
    "lenet5",
    "alexnet",
    "googlenet",
    "densenet121",
    "se_resnet50",
    "mobilenet_v2_100",
    "inception_resnet_v1",
)


@pytest.mark.parametrize("style", ["blocks", "volumes", "graph"])
@pytest.mark.parametrize("level", ["block", "layer"])
@pytest.mark.parametrize("name", SAMPLE)
def test_labels_are_whole_in_every_style(drawn, name, level, style):
    figure = drawn(name, find_card(name).input_size[-1], level=level, style=style)
    assert faults(figure) == []


@pytest.mark.parametrize(
    "name, depth",
    [("vgg19", 19), ("resnet50_v1", 50), ("densenet121", 121), ("googlenet", 22), ("se_resnet50", 50)],
)
def test_the_papers_depths_are_counted(drawn, name, depth):
    assert f"{depth} weight layers on the longest path" in " ".join(texts(drawn(name, level="stage")))


def test_resnet_50_is_drawn_as_its_paper_prints_it(drawn):
    figure = drawn("resnet50_v1", level="block")
    found = texts(figure)
    # Table 1: stages of 3, 4, 6 and 3 blocks; the first of each has a projection and stands alone.
    assert [t for t in found if t.startswith("×")] == ["×2", "×3", "×5", "×2", "×3", "×4", "×6", "×3"]
    assert {"64×56×56", "256×56×56", "512×28×28", "1024×14×14", "2048×7×7", "1000"} <= set(found)
    subtitle = " ".join(found[:3])
    assert "25.56 M parameters" in subtitle and "3.86 G MACs" in subtitle
    assert found.count("A") == 5 and found.count("B") == 5  # a card in each stage, and the inset
    assert "1×1, 512 /2" in found and "identity" in found


def test_resnet_50_at_block_level_is_small(drawn):
    assert len(drawn("resnet50_v1", level="block").svg.encode()) < 100_000


def test_the_table_adds_up_to_the_totals(drawn):
    found = texts(drawn("resnet50_v1", level="block"))
    units = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}

    def sum_behind(name: str) -> float:
        row = found[found.index(name) + 1 :][:6]
        return sum(float(t.split()[0]) * units[t.split()[1]] for t in row)

    assert sum_behind("parameters") == pytest.approx(25_557_032, rel=5e-3)
    assert sum_behind("MACs") == pytest.approx(3_857_973_248, rel=5e-3)


def test_heights_and_widths_are_on_one_scale_for_all_networks(drawn):
    # 14 + 15 log2(px) and 6 + 3.2 log2(channels): 512 channels of 28 px in both networks.
    wanted = (f"{6 + 3.2 * 9:.1f}", f"{14 + 15 * math.log2(28):.1f}")
    for name in ("vgg16", "resnet50_v1"):
        root = ElementTree.fromstring(drawn(name, level="block").svg)
        boxes = [
            (r.get("width"), r.get("height")) for r in root.iter(f"{SVG}rect") if r.get("class") == "conv"
        ]
        assert wanted in boxes


def test_filters_have_their_true_share_of_the_map(drawn):
    figure = drawn("lenet5", 32, style="volumes")
    root = ElementTree.fromstring(figure.svg)
    filters = [p.get("d") or "" for p in root.iter(f"{SVG}path") if p.get("class") == "filt"]
    corners = [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", filters[0])]
    side = corners[3][1] - corners[0][1]
    # C1 sees 5 of 32 px, on a map that is 12 + 28 log2(32) high.
    assert side == pytest.approx((12 + 28 * 5) * 5 / 32, abs=0.15)
    assert {"C1", "S2", "C3", "S4", "C5", "F6", "output", "6×28×28", "16×10×10", "156 params"} <= set(
        texts(figure)
    )


def test_structure_is_read_from_the_wiring_and_not_from_names():
    figure = draw(Wibble(), 32)
    found = texts(figure)
    assert found.count("×2") == 1  # three equal blocks: 16 to 16 channels, all alike
    assert "×3" in found
    root = ElementTree.fromstring(figure.svg)
    classes = Counter(p.get("class") for p in root.iter(f"{SVG}path"))
    assert classes["skip"] >= 3 and classes["skipd"] >= 2
    assert {g.get("data-layer") for g in root.iter(f"{SVG}g")} >= {"a", "b.0", "c.0", "c.1", "d"}


def test_a_long_connection_passes_over_what_lies_between():
    found = draw(UNet(), 32)
    assert faults(found) == []
    assert "from further back" in texts(found)
    assert faults(draw(UNet(), 32, level="layer")) == []


def test_a_network_of_several_inputs_is_drawn():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.left(x) + self.right(y)

    for level in ("stage", "block", "layer"):
        assert faults(draw(Two(), [(3, 16, 16), (1, 16, 16)], level=level)) == []


def test_networks_side_by_side_share_their_rows(drawn):
    with torch.device("meta"):
        nets = [create_model(name) for name in ("vgg19", "plain34", "resnet34")]
    figure = draw(nets, 224, title=["VGG-19", "plain-34", "ResNet-34"])
    found = texts(figure)
    assert faults(figure) == []
    assert found[0] == "VGG-19, plain-34 and ResNet-34"
    bands = [label for label in figure.labels if re.fullmatch(r"\d+×\d+|vector", label.text)]
    assert [b.text for b in bands] == ["224×224", "112×112", "56×56", "28×28", "14×14", "7×7", "vector"]
    # The poolings and convolutions that halve the map open each row, side by side.
    opens = [{round(i.y0, 1) for i in figure.labels if i.text == t} for t in ("3×3, 128 /2", "3×3, 256 /2")]
    assert [len(rows) for rows in opens] == [1, 1]
    assert opens[0] | opens[1] <= {round(i.y0, 1) for i in figure.labels if i.text == "max 2×2 /2"}
    assert [found[found.index("weight layers") + k] for k in (1, 2, 3)] == ["19", "34", "34"]


def test_the_naive_inception_module_costs_2_37_times_as_much(drawn):
    with torch.device("meta"):
        nets = [create_model(name) for name in ("googlenet_naive", "googlenet")]
    figure = draw(nets, 224, style="graph", module="stages.1.1")
    found = texts(figure)
    assert faults(figure) == []
    assert "2.37 times fewer multiply-adds, and 256 channels instead of 416." in found
    assert "concatenated: 416×28×28" in found and "concatenated: 256×28×28" in found


def test_a_dense_block_shows_every_edge(drawn):
    figure = drawn("densenet121", style="graph", module="stages.0.block")
    assert [t for t in texts(figure) if t in ("96", "128", "160", "192", "224", "256")] == [
        "96", "128", "160", "192", "224", "256",
    ]  # fmt: skip


def test_a_cell_shows_its_pairs_and_what_comes_from_further_back(drawn):
    figure = drawn("nasnet_a_large", 331, style="graph", module="stages.1.2")
    found = texts(figure)
    # Figure 4 of Zoph et al.: five sums of two operations, two of them with an identity.
    assert found.count("identity") == 2
    assert Counter(t.split(",")[0] for t in found if t.startswith(("sep", "mean"))) == {
        "sep 3×3": 3, "sep 5×5": 2, "mean 3×3": 3,
    }  # fmt: skip
    assert "538 k parameters" in " ".join(found)


def test_pre_activation_is_shown_where_it_is_the_point(drawn):
    found = texts(drawn("preact_resnet50", style="graph", module="stages.1.1"))
    assert found.count("norm, relu") == 3
    assert "norm, relu" not in texts(drawn("resnet50_v1", style="graph", module="stages.1.1"))


def test_equal_input_gives_equal_bytes_in_every_process():
    code = (
        "import torch, hashlib; from convatlas import create_model, draw\n"
        "with torch.device('meta'): net = create_model('nasnet_a_mobile')\n"
        "print(hashlib.sha256(draw(net, 224).svg.encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seen) == 1


def test_svg_is_plain_and_says_what_it_shows(drawn):
    svg = drawn("resnet50_v1", level="block").svg
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title" and root[1].tag == f"{SVG}desc"
    assert "256×56×56" in (root[1].text or "")
    assert not {e.tag for e in root.iter()} & {f"{SVG}script", f"{SVG}a", f"{SVG}image", f"{SVG}use"}
    assert "href" not in svg and "url(" not in svg


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_themes_share_no_colour_of_another(theme):
    palettes = {
        "light": {"#BCD7F8", "#C2331C", "#17202B"},
        "dark": {"#143A78", "#FF8558", "#E8ECF1"},
        "print": {"#CBDCF0", "#EDEDED"},
    }
    colours = set(re.findall(r"#[0-9A-F]{6}", draw(Wibble(), 32, theme=theme).svg))
    assert palettes[theme] & colours
    for other in palettes.keys() - {theme}:
        assert not palettes[other] & colours


def test_receptive_fields_are_written(drawn):
    # VGG-16's pool5 sees 212 px (Araujo et al., 2019), so its last convolution sees 196.
    assert "196" in texts(drawn("vgg16", show=("rf",), level="stage"))


def test_names_of_users_are_escaped():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.name = "<b>&\"it's</b>"
            self.c = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(x)

    figure = draw(Odd(), 8)
    assert ElementTree.fromstring(figure.svg)[0].text == "<b>&\"it's</b>"


class Many(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"style": "block"}, "`style`='block'; expected one of blocks, volumes, graph; nearest: blocks"),
        ({"level": "layers"}, "`level`='layers'; expected one of stage, block, layer; nearest: layer"),
        ({"theme": "drak"}, "`theme`='drak'; expected one of light, dark, print; nearest: dark"),
        ({"show": ["flops"]}, "`show`='flops'; expected one of shapes, params, macs, rf"),
        ({"style": "graph", "module": "b.9"}, "`module`='b.9' is not in the network; nearest: b.2"),
        ({"module": "b.0"}, "`module`='b.0' is drawn by style='graph', not by style='blocks'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(Wibble(), 32, **options)


def test_a_name_is_no_module():
    with pytest.raises(
        TypeError, match=r"`net`='resnet50'; expected a torch.nn.Module, such as create_model"
    ):
        draw("resnet50", 224)  # type: ignore[arg-type]


def test_volumes_of_two_networks_share_their_scale():
    with torch.device("meta"):
        nets = [create_model(name) for name in ("alexnet_owt", "vgg16")]
    figure = draw(nets, 224, style="volumes", level="stage")
    assert faults(figure) == []
    root = ElementTree.fromstring(figure.svg)
    fronts = [r.get("height") for r in root.iter(f"{SVG}rect") if r.get("class") == "io front"]
    assert fronts == [f"{12 + 28 * math.log2(224):.1f}"] * 2


def test_thousands_of_layers_say_which_level_to_take():
    with torch.device("meta"):
        net = Many(2100)
    with pytest.raises(ValueError, match=r"2,100 layers.*up to 2,000; take level='block' or level='stage'"):
        draw(net, 4, level="layer")
    assert faults(draw(net, 4, level="stage")) == []


def test_what_cannot_be_traced_ends_in_the_tracers_error():
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0]

    with pytest.raises(ValueError, match="depends on data"):
        draw(Reads(), 8)
