"""The history: numbers of the papers, descent that runs forward, labels that neither overlap nor are cut."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import combinations

import pytest

from convatlas.cli.history import history_command
from convatlas.drawing import Figure
from convatlas.plots.history import draw_accuracy, draw_depth, draw_timeline, ideas, milestones, points
from convatlas.plots.placing import Box, Mark, lead_labels, place_labels, shared_area
from made_figures import faults, texts

CHARTS: dict[str, Callable[..., Figure]] = {
    "depth": draw_depth,
    "ideas": draw_timeline,
    "accuracy": draw_accuracy,
}


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize("chart", CHARTS)
def test_labels_are_whole_and_bytes_are_the_same(chart: str, theme: str) -> None:
    figure = CHARTS[chart](theme=theme)
    assert faults(figure) == []
    assert figure.svg == CHARTS[chart](theme=theme).svg
    assert len(figure.svg.encode()) < 100_000
    assert "<title" in figure.svg and "<desc" in figure.svg and "<script" not in figure.svg


def test_the_revolution_of_depth_has_the_papers_numbers() -> None:
    # He et al. 2016: 8, 8, 19, 22 and 152 layers; errors of the entries as printed in their papers.
    found = {each.network: (each.year, each.depth, each.top5_error) for each in milestones()}
    assert found["alexnet"] == (2012, 8, 16.4)
    assert found["vgg19"] == (2014, 19, 7.3)
    assert found["googlenet"] == (2014, 22, 6.67)
    assert found["resnet152_v1"] == (2015, 152, 3.57)
    assert found["senet154"] == (2017, 154, 2.251)


def test_a_bar_has_a_slice_for_each_layer() -> None:
    slices = [d.count("M") for d in re.findall(r'<path class="n-\w+" d="([^"]+)"', draw_depth().svg)]
    assert sorted(slices) == [8, 8, 19, 22, 152, 154, 176]


def test_networks_and_years_may_be_chosen() -> None:
    figure = draw_depth(["resnet50", "resnet1202_cifar", "lenet5"])
    assert {"LeNet-5", "ResNet-50", "ResNet-1202", "1,202", "…", "6.71 %"} <= set(texts(figure))
    assert "one slice is one layer" not in figure.svg  # 1,202 slices would be too thin.
    assert "2013" not in texts(draw_depth(years=(2014, 2015)))
    assert faults(figure) == []
    # Without any published error there is no panel of errors.
    assert "top-5 error" not in texts(draw_depth(["resnet20_cifar"]))


def test_ideas_descend_from_earlier_ones() -> None:
    found = {idea.key: idea for idea in ideas()}
    assert all(found[parent].year <= idea.year for idea in found.values() for parent in idea.builds_on)
    assert found["resnet"].builds_on == ("vgg", "inception_v2")
    # A paper of two files stands once, and nothing but LeNet is without an ancestor.
    assert len({idea.title for idea in found.values()}) == len(found)
    assert [idea.label for idea in found.values() if not idea.builds_on] == ["LeNet-5"]


def test_every_arrow_of_descent_is_drawn() -> None:
    arrows = re.findall(r'<path class="o-(\w+)"', draw_timeline().svg)
    assert len(arrows) == sum(len(idea.builds_on) for idea in ideas())
    # An arrow has the colour of the idea that it comes from.
    assert arrows.count("lenet") == 1 and "efficientnet" in arrows


def test_the_chart_of_accuracy_holds_published_numbers() -> None:
    found = {point.network: point for point in points()}
    assert found["efficientnet_b0"].top1 == 76.3  # Tan and Le 2019, Table 2
    # VGG-16's maps and weights: 138,357,544 weights of 4 bytes are 553 MB alone.
    assert found["vgg16"].memory > 4 * 138_357_544
    assert len({point.label for point in found.values()}) == len(found)
    assert found["vgg16_bn"].label == "VGG-16 bn"
    # The same accuracy stands for ResNet-50 with either stride: it is drawn once.
    assert "resnet50_v1" in found and "resnet50_v1_5" not in found


def test_labels_lie_by_their_own_marks() -> None:
    frame = Box(0, 0, 400, 300)
    marks = [Mark(60 + 37.0 * i % 300, 40 + 53.0 * i % 220, 4 + i % 5, 60, 12) for i in range(24)]
    boxes = place_labels(marks, frame)
    placed = [box for box in boxes if box is not None]
    assert len(placed) > 12
    assert all(shared_area(a, b) == 0 for a, b in combinations(placed, 2))
    assert all(box.x0 >= 0 and box.x1 <= 400 and box.y0 >= 0 and box.y1 <= 300 for box in placed)
    for box, mark in zip(boxes, marks, strict=True):
        if box is not None:
            away = [
                math.hypot(max(box.x0 - m.x, 0, m.x - box.x1), max(box.y0 - m.y, 0, m.y - box.y1)) - m.radius
                for m in marks
            ]
            # No other mark is as near as the label's own.
            assert sorted(away)[0] == away[marks.index(mark)] < sorted(away)[1] - 1


def test_lines_lead_to_labels_that_have_no_room_nearby() -> None:
    frame = Box(0, 0, 400, 300)
    # A heap of marks in the middle: most labels must move away.
    marks = [Mark(190 + 9.0 * (i % 4), 140 + 9.0 * (i // 4), 4, 50, 12) for i in range(12)]
    near = place_labels(marks, frame)
    led = lead_labels(marks, near, frame, reaches=(22.0, 48.0, 82.0))
    assert sum(box is not None for box in near) + sum(way is not None for way in led) >= 8
    assert not any(box is not None and way is not None for box, way in zip(near, led, strict=True))
    boxes = [box for box in near if box is not None] + [way.box for way in led if way is not None]
    assert all(shared_area(a, b) == 0 for a, b in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= 400 and box.y0 >= 0 and box.y1 <= 300 for box in boxes)
    for way, mark in zip(led, marks, strict=True):
        if way is None:
            continue
        # It begins at its own mark, and passes over no other and no label.
        assert math.dist(way.start, (mark.x, mark.y)) == pytest.approx(mark.radius)
        middle = (way.start[0] + way.end[0]) / 2, (way.start[1] + way.end[1]) / 2
        others = [m for m in marks if m is not mark]
        assert all(math.dist(middle, (m.x, m.y)) > m.radius for m in others)
        assert not any(b.x0 < middle[0] < b.x1 and b.y0 < middle[1] < b.y1 for b in boxes)


def test_no_room_for_a_label() -> None:
    assert place_labels([Mark(5, 5, 2, 60, 12)], Box(0, 0, 20, 20)) == [None]


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    history_command(year="2012..2015")
    assert "2017" not in (tmp_path / "history-depth.svg").read_text(encoding="utf-8")
    history_command(chart="ideas", theme="print", out=tmp_path / "ideas.png", scale=0.5)
    assert (tmp_path / "ideas.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    history_command("vgg16", as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert [each["depth"] for each in data["depth"]["networks"]] == [16]
    assert "longest path" in data["depth"]["rule"]
    assert {"ideas", "accuracy", "depth"} == set(data)
    assert len(list(tmp_path.iterdir())) == 2  # --json alone draws nothing.


@pytest.mark.parametrize(
    ("networks", "options", "message"),
    [
        pytest.param((), {"chart": "dept"}, "unknown chart 'dept'; nearest: depth", id="chart"),
        pytest.param((), {"theme": "drak"}, "unknown theme 'drak'; nearest: dark", id="theme"),
        pytest.param(("resnet5",), {}, "unknown network 'resnet5'; nearest", id="network"),
        pytest.param((), {"year": "1899"}, "`years`=1899..1899: no network of these years", id="year"),
        pytest.param((), {"year": "1899", "chart": "ideas"}, "no paper of these years", id="ideas' year"),
        pytest.param(
            (), {"year": "1899", "chart": "accuracy"}, "with a published accuracy", id="points' year"
        ),
        pytest.param(("vgg16",), {"chart": "ideas"}, "--chart ideas shows all of them", id="not for ideas"),
    ],
)
def test_the_commands_mistakes(tmp_path, monkeypatch, networks, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        history_command(*networks, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_other_files(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"'x.jpg': figures are written as .svg, .png, .pdf"):
        history_command(out=tmp_path / "x.jpg")
