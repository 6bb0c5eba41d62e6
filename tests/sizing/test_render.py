import csv
import io
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from convatlas.sizing import Sheet, size
from convatlas.sizing.byhand import values_by_hand
from convatlas.sizing.compare import compare, compare_json
from convatlas.sizing.expression import build
from convatlas.sizing.outline import outline
from convatlas.sizing.render import (
    grid,
    record,
    to_csv,
    to_html,
    to_json,
    to_latex,
    to_markdown,
    to_text,
)
from convatlas.tables import Grid, grid_csv, grid_markdown, grid_text


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 96, 11, 4)
        self.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(96, 8, 1, 2), nn.ReLU()), nn.Conv2d(8, 8, 3)])
        self.head_of_it = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head_of_it(x.mean((2, 3)))


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return size(Small(), 227)


def test_stages_stand_for_lists_of_modules(sheet: Sheet) -> None:
    stages = outline(sheet)
    assert [stage.path for stage in stages] == ["stem", "stages.0", "stages.1", "", "head_of_it"]
    assert stages[0].params == 34_944
    assert sum(stage.params for stage in stages) == sheet.params
    assert sum(stage.macs for stage in stages) == sheet.macs


def test_a_sequence_with_nearly_everything_is_opened() -> None:
    net = nn.Sequential()
    net.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    assert [stage.path for stage in outline(size(net, 8))] == ["features.0", "features.1"]


def test_text_of_stages(sheet: Sheet) -> None:
    lines = to_text(sheet).splitlines()
    assert lines[0] == "Small on 3x227x227, batch 1, float32"
    assert lines[2].split() == "stage output CxHxW params MACs % MACs MiB out RF px depth".split()
    stem = next(line for line in lines if line.startswith("stem"))
    # 290,400 values of 4 bytes.
    assert stem.split()[1:4] == ["96x55x55", "34,944", "105,415,200"]
    assert stem.split()[-3:] == ["1.11", "11", "1"]
    assert next(line for line in lines if line.startswith("total")).split()[1] == f"{sheet.params:,}"
    text = "\n".join(lines)
    assert "1 operation skips positions of the input" in text
    assert " smallest input  27 px" in text


def test_text_of_layers_and_formulas(sheet: Sheet) -> None:
    plain, full = to_text(sheet, layers=True), to_text(sheet, formulas=True)
    assert "(227 - 11 + 2*0)/4 + 1 = 55" not in plain
    for text in (plain, full):
        assert "conv2d 11x11 /4" in text
    assert "    (227 - 11 + 2*0)/4 + 1 = 55\n    11*11*3 * 96 + 96 = 34,944 parameters\n" in full
    assert "    never reads 27 of 55 x 27 of 55 positions of its input\n" in full


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("formulas", [False, True], ids=["stages", "formulas"])
def test_text_fits(sheet: Sheet, width: int, formulas: bool) -> None:
    text = to_text(sheet, formulas=formulas, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()


def test_numbers_are_never_broken(sheet: Sheet) -> None:
    assert "105,415,200" in to_text(sheet, layers=True, width=20)


def test_color_adds_codes_only(sheet: Sheet) -> None:
    colored = to_text(sheet, formulas=True, color=True)
    assert "\033[1m" in colored
    for code in ("\033[0m", "\033[1m", "\033[2m"):
        colored = colored.replace(code, "")
    assert colored == to_text(sheet, formulas=True)


def test_time_is_shown_where_known(sheet: Sheet) -> None:
    assert " time " not in to_text(sheet)
    assert " time            1.5 ms for a forward" in to_text(sheet, seconds=0.0015)


def test_batch_and_dtype_are_said() -> None:
    net = build("conv 4 3x3 groups 1, dw 3x3 dilate 2, pool 2x2, gap", (3, 64, 64))
    text = to_text(size(net, (3, 64, 64), batch_size=7, dtype=torch.bfloat16), layers=True)
    assert "on 3x64x64, batch 7, bfloat16" in text
    assert "conv2d 3x3 dilated 2 groups 4" in text
    assert "4x62x62" in text


def test_csv_is_exact(sheet: Sheet) -> None:
    stages = list(csv.DictReader(io.StringIO(to_csv(sheet))))
    layers = list(csv.DictReader(io.StringIO(to_csv(sheet, layers=True))))
    assert [row["stage"] for row in stages] == ["stem", "stages.0", "stages.1", "", "head_of_it"]
    assert len(layers) == len(sheet.rows)
    assert layers[0]["macs"] == "105415200"
    assert layers[0]["bytes_written"] == str(4 * 290_400)
    assert layers[0]["output_shape"] == "1x96x55x55"
    assert (layers[0]["receptive_field_size"], layers[0]["receptive_field_stride"]) == ("11x11", "4x4")
    assert layers[1]["unread"] == "27x27"
    assert layers[-1]["receptive_field_size"] == "global"
    assert layers[0]["formulas"].startswith("(227 - 11 + 2*0)/4 + 1 = 55; ")


def test_json_holds_everything(sheet: Sheet) -> None:
    found = json.loads(to_json(sheet, 0.25))
    assert found == json.loads(json.dumps(record(sheet, 0.25)))
    assert found["params"] == sum(p.numel() for p in sheet.request.net.parameters())
    assert found["input_shapes"] == [[1, 3, 227, 227]]
    assert found["estimated_seconds"] == 0.25
    assert found["training_bytes"] == sum(found["training_parts"].values())
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert len(found["stages"]) == 5
    assert found["layers"][0]["receptive_field_start"] == [0, 0]


def test_markdown_and_latex(sheet: Sheet) -> None:
    lines = to_markdown(sheet).splitlines()
    assert lines[0] == "**Small** on 3x227x227, batch 1, float32"
    assert lines[3] == "| --- | --- | --: | --: | --: | --: | --: | --: |"
    assert {line.count("|") for line in lines[2:]} == {9}
    latex = to_latex(sheet, layers=True)
    assert r"\begin{tabular}{lllrrrrr}" in latex
    assert r"head\_of\_it & linear & 10 &" in latex
    assert latex.count(r"\\") == len(sheet.rows) + 2


def test_markdown_escapes_bars() -> None:
    net = nn.Sequential()
    net.add_module("a|b", nn.ReLU())
    assert r"| a\|b |" in to_markdown(size(net, (3, 4, 4)))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_well_formed_and_escaped() -> None:
    net = nn.Sequential()
    net.add_module("<script>", nn.Conv2d(3, 96, 11, 4))
    sheet = size(net, 227)
    page = sheet._repr_html_()
    assert page == to_html(sheet)
    assert "<script>" not in page
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert "<script>" in tags.text
    assert "(227 - 11 + 2*0)/4 + 1 = 55" in tags.text
    assert "34,944" in tags.text


def test_values_by_hand_of_vgg16() -> None:
    import convatlas

    with torch.device("meta"):
        net = convatlas.create_model("vgg16")
    sheet = size(net, 224)
    assert sheet.params == 138_357_544
    # Input, convolutions, poolings, fully connected layers: what the course lists.
    assert values_by_hand(sheet) == 150_528 + 13_547_520 + 1_530_368 + 9_192 == 15_237_608
    assert "15,237,608 values" in to_text(sheet)


def test_values_by_hand_scale_with_the_batch(sheet: Sheet) -> None:
    assert values_by_hand(size(Small(), 227, batch_size=3)) == 3 * values_by_hand(sheet)


def test_compare() -> None:
    small = size(build("conv 96 11x11 /4", (3, 227, 227)), 227)
    large = size(build("conv 96 11x11 /4, relu, fc 10", (3, 227, 227)), 227)
    rows = {row[0]: row[1:] for row in compare([small, large]).rows}
    assert rows["parameters"] == ("34,944", f"{34_944 + 290_400 * 10 + 10:,}", "84.10")
    assert rows["RF px"] == ("11", "global", "")
    assert rows["RF px before head"] == ("11", "11", "")
    assert rows["stage 1"][0] == rows["stage 1"][1] == "conv1: 96x55x55, 105,415,200 MACs"
    assert rows["stage 2"] == ("", "relu1: 96x55x55, 0 MACs", "")
    assert [found["params"] for found in json.loads(compare_json([small, large]))] == [
        small.params,
        large.params,
    ]


def test_compared_as_text_and_tables() -> None:
    small = size(build("conv 96 11x11 /4", (3, 227, 227)), 227)
    table = compare([small, small, small])
    assert max(map(len, grid_text(table, width=100).splitlines())) <= 100
    assert words_of(table) <= set(grid_text(table, width=10**6).split())
    assert next(csv.reader(io.StringIO(grid_csv(table)))) == list(table.columns)
    assert grid_markdown(table).startswith("|  | conv 96 11x11 /4 |")


def words_of(table: Grid) -> set[str]:
    cells = [*table.columns, *(cell for row in (*table.rows, table.total) for cell in row)]
    return {word for cell in cells for word in cell.split()}


@pytest.mark.parametrize("width", [40, 50, 60, 70, 79])
@pytest.mark.parametrize("layers", [False, True], ids=["stages", "layers"])
def test_narrow_terminal(sheet: Sheet, width: int, layers: bool) -> None:
    table = grid(sheet, layers=layers)
    text = grid_text(table, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert max(map(len, to_text(sheet, layers=layers, width=width).splitlines())) <= width
    left_out = text.partition("No room for: ")[2].split()
    assert "MACs" in text
    for title in ("% MACs", "MiB out", "RF px"):
        # A title may go on in the next line, or stand before its value.
        assert title not in table.columns or set(title.split()) <= {word.strip(":,") for word in text.split()}
    assert "operation" not in left_out
    for row in table.rows:
        assert {*row[0].split(), row[table.columns.index("MACs")]} <= set(text.split())


words = st.text("abcdef.,123", min_size=1, max_size=14)
numbers = st.integers(0, 10**12).map("{:,}".format)
rows = st.tuples(words, st.lists(words, max_size=4).map(" ".join), numbers, numbers, numbers, words)


@given(rows=st.lists(rows, min_size=1, max_size=5), width=st.integers(40, 120), tail=st.integers(0, 1))
def test_no_word_is_ever_broken(rows: list[tuple[str, ...]], width: int, tail: int) -> None:
    columns = ("name", "what it is", "params", "MACs", "% MACs", "also")
    table = Grid(columns, 2, rows, (), [], tail=tail)
    text = grid_text(table, width=width)
    assert max(map(len, text.splitlines())) <= width
    left_out = text.partition("No room for: ")[2]
    for column, title in enumerate(columns):
        for row in rows:
            assert title in left_out or set(row[column].split()) <= set(text.split())


def test_whole_rows_where_nothing_fits() -> None:
    name = "stages.3.blocks.17.attention.projection"
    table = Grid(("layer", "operation", "MACs"), 2, [(name, "linear", "105,415,200")], (), [])
    assert grid_text(table, width=40) == f"{name}\n  operation: linear\n  MACs: 105,415,200\n"


def test_what_cannot_be_trained_is_still_sized() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4))
    found = size(net, 8)
    assert "training        not possible with this input and batch" in to_text(found)
    assert record(found)["training_bytes"] is record(found)["training_parts"] is None
    assert record(found)["params"] == 4 * 3 * 64 + 4 + 8


def test_compare_needs_two(sheet: Sheet) -> None:
    with pytest.raises(ValueError, match="`sheets` holds 1; expected at least 2"):
        compare([sheet])


class Norm(nn.Module):
    """A layer of several operations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1).sqrt()


def test_a_layer_is_one_row() -> None:
    norm = Norm()
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), norm, norm, nn.ReLU())
    sheet = size(net, 8)
    table = grid(sheet, layers=True)
    assert [row[:2] for row in table.rows] == [
        ("0", "conv2d 3x3"),
        ("1", "Norm"),
        ("1", "Norm"),
        ("3", "relu"),
    ]
    assert len(sheet.rows) == 2 + 2 * 5 + 1
    lines = list(csv.DictReader(io.StringIO(to_csv(sheet, layers=True))))
    assert [line["operation"] for line in lines] == ["conv2d", "Norm", "Norm", "relu"]
    assert sum(int(line["flops"]) for line in lines) == sheet.flops
    assert sum(int(line["macs"]) for line in lines) == sheet.macs
    assert len(json.loads(to_json(sheet))["layers"]) == len(sheet.rows)


class Sides(nn.Module):
    """A network with a side classifier, a reparametrised weight and one that it forgot."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.aux = nn.Linear(8, 10)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.norm.weight / (self.norm.running_var + 1e-5).sqrt()
        x = nn.functional.conv2d(x, self.body.weight * scale[:, None, None, None], self.norm.bias)
        x = x.mean((2, 3))
        return self.head(x) + self.aux(x) if self.training else self.head(x)


def test_side_classifiers_stand_apart() -> None:
    net = Sides().eval()
    sheet = size(net, 8)
    # The convolution's own bias is left out too.
    assert sheet.params == 8 * 27 + 16 + 90
    assert sheet.side_params == 8 + 90
    assert sheet.side_modules == ("aux",)
    assert sum(stage.params for stage in sheet.stages()) == sheet.params
    assert "+ 98 in side classifiers, used in training only" in to_text(sheet)
    assert json.loads(to_json(sheet))["side_params"] == 98
    assert size(net, 8, train=True, batch_size=2).side_params == 8
    net.spare, net.aux = net.aux, nn.Identity()
    assert "+ 98 that this forward does not use (spare)" in to_text(size(net, 8))


@pytest.mark.parametrize(
    ("name", "forward", "side"),
    [
        # Szegedy et al. 2014, Table 1 with biases; the heads have 512 and 528 channels of input.
        pytest.param("googlenet", 6_998_552, 3_188_840 + 3_190_888, id="googlenet"),
        # torchvision's count without `AuxLogits`.
        pytest.param("inception_v3", 23_834_568, 3_326_696, id="inception_v3"),
        pytest.param("resnet18", 11_689_512, 0, id="none"),
    ],
)
def test_parameters_of_the_atlas_are_those_that_run(name: str, forward: int, side: int) -> None:
    import convatlas

    with torch.device("meta"):
        sheet = size(convatlas.create_model(name).eval(), 299)
    assert (sheet.params, sheet.side_params) == (forward, side)
    assert sum(stage.params for stage in sheet.stages()) == forward


def test_needs_no_rich() -> None:
    program = """
import sys, torch
from convatlas.sizing import size
from convatlas.sizing.render import to_text
assert to_text(size(torch.nn.Conv2d(3, 8, 3), 8))
assert "rich" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
