"""Exercises: their answers against PyTorch's own modules, how answers are read, and the page."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from convatlas.explorer.exercises import KINDS, exercise, mark, read_answer

SEEDS = range(40)
CONV = re.compile(
    r"image of (\d+)×\d+×(\d+) goes through a convolution of (\d+) filters, (\d+)×\d+, stride (\d+), "
    r"(?:no padding|padding (\d+)), (each|without)"
)


def conv_of(given: str) -> tuple[nn.Conv2d, torch.Tensor]:
    """The module that a question describes, and its input."""
    found = CONV.search(given)
    assert found, given
    px, chans, filters, kernel, stride, padding = (int(each or 0) for each in found.groups()[:6])
    with torch.device("meta"):
        conv = nn.Conv2d(chans, filters, kernel, stride, padding, bias=found[7] == "each")
        return conv, torch.empty(1, chans, px, px)


@pytest.mark.parametrize("seed", SEEDS)
def test_convolutions_are_what_torch_computes(seed: int) -> None:
    conv, image = conv_of(exercise("volume", seed).given)
    chans, height, width = conv(image).shape[1:]
    assert exercise("volume", seed).answer == (height, width, chans)
    conv, image = conv_of(exercise("params", seed).given)
    assert exercise("params", seed).answer == (sum(each.numel() for each in conv.parameters()),)
    conv, image = conv_of(exercise("macs", seed).given)
    assert exercise("macs", seed).answer == (conv(image).numel() * conv.weight[0].numel(),)


@pytest.mark.parametrize("seed", SEEDS)
def test_receptive_field_is_where_the_gradient_is(seed: int) -> None:
    question = exercise("field", seed)
    layers = [
        nn.Conv1d(1, 1, int(kernel), int(stride), bias=False)
        for kernel, stride in re.findall(r"(\d+)×\d+ convolution with stride (\d+)", question.given)
    ]
    net = nn.Sequential(*layers)
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    signal = torch.ones(1, 1, 400, requires_grad=True)
    net(signal)[0, 0, 0].backward()
    assert signal.grad is not None
    assert question.answer == (int((signal.grad != 0).sum()),)


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_and_padding(seed: int) -> None:
    question = exercise("padding", seed)
    kernel, px = (int(each) for each in re.findall(r"(\d+)×", question.given))
    dilation = int((re.search(r"dilation (\d+)", question.given) or ["", "1"])[1])
    out = nn.Conv1d(1, 1, kernel, 1, int(question.answer[0]), dilation)(torch.zeros(1, 1, px))
    assert out.shape[-1] == px
    question = exercise("bottleneck", seed)
    chans, inner = (int(each) for each in re.findall(r"(?:of|to) (\d+)\s*channels", question.given)[:2])
    plain = 2 * nn.Conv2d(chans, chans, 3, bias=False, device="meta").weight.numel()
    shapes = ((chans, inner, 1), (inner, inner, 3), (inner, chans, 1))
    narrow = sum(nn.Conv2d(*shape, bias=False, device="meta").weight.numel() for shape in shapes)
    assert question.answer == (plain - narrow,)
    question = exercise("depthwise", seed)
    found = re.search(r"A (\d+)×\d+ convolution from (\d+) to (\d+)", question.given)
    assert found
    kernel, chans, filters = map(int, found.groups())
    ratio = kernel**2 * chans * filters / (kernel**2 * chans + chans * filters)
    assert mark(question, f"{ratio:.1f}") == (True, "")


def _text(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:.1f}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_question_and_its_mistakes_are_none(kind: str) -> None:
    assert len({exercise(kind, seed).given for seed in range(30)}) > 10
    for seed in range(30):
        question = exercise(kind, seed)
        assert question == exercise(kind, seed)
        right = "×".join(_text(each) for each in question.answer)
        assert mark(question, right) == (True, "")
        for wrong, why in question.mistakes:
            is_right, said = mark(question, "×".join(_text(each) for each in wrong))
            assert not is_right and said
            assert why


def test_alexnet_s_first_layer() -> None:
    """Question 1 of the course: 96 filters 11×11, stride 4 on 227×227×3 give 55×55×96."""
    assert read_answer("55×55×96", 3) == read_answer(" 55 x 55 * 96 ", 3) == read_answer("55, 55, 96", 3)
    assert read_answer("34,944", 1) == read_answer("34 944", 1) == read_answer("34944", 1) == (34944.0,)


@pytest.mark.parametrize("text", ["", "many", "1e5", "-3", "55×55", "nan", "5" * 60])
def test_what_is_no_answer_is_said_so(text: str) -> None:
    right, why = mark(exercise("volume", 1), text)
    assert (right, why) == (False, "An answer looks like 55×55×96.")


def test_the_page_marks_and_shows_the_working(site: Any) -> None:
    question = exercise("params", 3)
    right = site.get(
        "/exercises", params={"kind": "params", "seed": 3, "answer": f"{question.answer[0]:,.0f}"}
    )
    assert "✓ Right." in right.text and question.worked[-1] in right.text
    wrong = site.get("/exercises", params={"kind": "params", "seed": 3, "answer": "12"})
    assert "✗ Not yet." in wrong.text and question.worked[-1] not in wrong.text
    shown = site.get("/exercises", params={"kind": "params", "seed": 3, "show": "1"})
    assert question.worked[-1] in shown.text


def test_a_sheet_and_its_solutions_are_pdf(site: Any) -> None:
    plain, solved = site.get("/exercises.pdf?seed=4"), site.get("/exercises.pdf?seed=4&solutions=1")
    assert plain.content.startswith(b"%PDF") and solved.content.startswith(b"%PDF")
    assert plain.content != solved.content
    assert 'filename="exercises-4-solutions.pdf"' in solved.headers["content-disposition"]


@pytest.mark.parametrize(
    ("query", "said"),
    [("kind=depth", "expected one of volume"), ("seed=-1", "whole number from 0"), ("seed=x", "`seed`=")],
)
def test_unknown_kinds_and_seeds_are_refused(site: Any, query: str, said: str) -> None:
    found = site.get(f"/exercises?{query}")
    assert found.status_code == 422
    assert said in found.json()["detail"]
