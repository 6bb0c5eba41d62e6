"""Files of figures, the figures of a lesson, and the command."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from convatlas.cli import _run
from convatlas.cli.draw import draw_command
from convatlas.drawing import draw, draw_padding, draw_receptive_field, draw_unrolled
from convatlas.drawing.metrics import reserved, width
from made_figures import Wibble, faults, texts


@pytest.fixture(scope="module")
def figure():
    return draw(Wibble(), 32)


def test_files_are_what_their_names_say(figure, tmp_path):
    svg = figure.save(tmp_path / "net.svg")
    assert svg.read_text(encoding="utf-8") == figure.svg == figure._repr_svg_()
    png = figure.save(tmp_path / "net.PNG", scale=1.5)
    with Image.open(png) as image:
        assert image.size == (round(figure.width * 1.5), round(figure.height * 1.5))
    pdf = figure.save(tmp_path / "net.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and b"Arimo" in pdf
    assert figure.save(tmp_path / "again.pdf").read_bytes() == pdf


def test_a_png_has_the_text_in_the_shipped_font(figure, tmp_path):
    with Image.open(io.BytesIO(figure.save(tmp_path / "n.png", scale=1).read_bytes())) as image:
        grey = image.convert("L")
        title = figure.labels[0]
        ink = grey.crop((int(title.x0), int(title.y0), int(title.x1), int(title.y1))).point(lambda v: v < 128)
        box = ink.getbbox()
    # The title is drawn, as wide as Helvetica's metrics say.
    assert box is not None
    assert box[2] - box[0] == pytest.approx(width(title.text, 20, True), abs=4)


def test_other_types_are_refused(figure, tmp_path):
    with pytest.raises(ValueError, match=r"'net.jpg': figures are written as .svg, .png, .pdf"):
        figure.save(tmp_path / "net.jpg")
    with pytest.raises(ValueError, match="`scale`=0; expected more than 0"):
        figure.save(tmp_path / "net.png", scale=0)
    assert list(tmp_path.iterdir()) == []


def test_more_room_is_kept_than_the_text_takes():
    # Advances of Helvetica and DejaVu Sans, from the fonts: digits are 556 and 636 thousandths of an em.
    assert width("1234567890", 100) == pytest.approx(556)
    assert reserved("1234567890", 100) == pytest.approx(636)
    assert reserved("漢字", 10) == pytest.approx(20)


def test_padding_counts_windows():
    figure = draw_padding(28, 5)
    numbers = [int(t) for t in texts(figure) if t.isdigit()]
    # Without padding a corner px is read once, with 2 px of it by 9 windows; inside by 25.
    assert numbers[0] == 1
    assert sum(numbers[: 28 * 28]) == 24 * 24 * 25
    assert numbers.count(9) >= 4 and max(numbers) == 25
    assert "pad 2: (28 − 5 + 2·2)/1 + 1 = 28, output 28×28" in texts(figure)
    assert faults(figure) == []


def test_receptive_field_of_three_3x3_is_7():
    figure = draw_receptive_field(3, 3)
    assert [t for t in texts(figure) if " × " in t] == ["3 × 3", "5 × 5", "7 × 7"]
    assert "27 C² weights instead of 49 C²" in " ".join(texts(figure))
    assert faults(figure) == []


def test_residual_blocks_unroll_into_two_to_the_n_paths():
    found = texts(draw_unrolled(3))
    # Each block is built once, and lies on half of the 8 paths.
    assert [found.count(f"f{k}") for k in (1, 2, 3)] == [5, 5, 5]
    assert faults(draw_unrolled(5)) == []


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: draw_padding(28, 29), "`kernel`=29; expected 1 to 28"),
        (lambda: draw_padding(41), "`size`=41; expected 2 to 40"),
        (lambda: draw_receptive_field(3, 9), "`count`=9; expected 1 to 8"),
        (lambda: draw_unrolled(6), "`count`=6; expected 1 to 5"),
        (lambda: draw_unrolled(3, theme="red"), "`theme`='red'; expected one of light, dark, print"),
    ],
)
def test_lessons_name_what_is_out_of_range(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_command_draws_names_expressions_and_lessons(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_command("resnet18", theme="dark", level="stage")
    assert "ResNet-18" in (tmp_path / "resnet18.svg").read_text(encoding="utf-8")
    draw_command("CONV 8 5x5 pad 2, ReLU, POOL 2x2 /2", input="3,28,28", style="volumes")
    draw_command(lesson="unrolled", count=2)
    assert len(list(tmp_path.glob("*.svg"))) == 3
    assert "wrote unrolled.svg (" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((), {}, "name a network"),
        (("resnet18",), {"lesson": "padding"}, "or --lesson"),
        (("resnet18", "lenet5"), {}, r"the networks take inputs of \(3, 224, 224\) and \(1, 32, 32\)"),
        ((), {"lesson": "pading"}, "`--lesson`='pading'; expected one of padding, receptive-field, unrolled"),
    ],
)
def test_the_commands_mistakes(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        draw_command(*arguments, **options)


def commands_of_the_docs() -> list[str]:
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
    table = page[page.index("## The figures of a course") :]
    return [line.removeprefix("convatlas ") for line in re.findall(r"`(convatlas draw [^`]+)`", table)]


def test_every_command_of_the_docs_draws(tmp_path, capsys):
    commands = commands_of_the_docs()
    assert len(commands) > 25
    for place, command in enumerate(commands):
        _run([*shlex.split(command), "--out", str(tmp_path / f"{place}.svg")])
    assert len(list(tmp_path.iterdir())) == len(commands)
