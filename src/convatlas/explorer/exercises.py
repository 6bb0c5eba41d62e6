"""Exercises on sizes: each is a function of its kind and seed and has its worked answer. Needs no torch."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Sequence

from .settings import BadRequestError

_Mistake = tuple[tuple[float, ...], str]
LARGEST_SEED = 999_999
KINDS = {
    "volume": "Output volume",
    "params": "Parameters",
    "macs": "Multiply-adds",
    "field": "Receptive field",
    "padding": "Padding",
    "bottleneck": "Bottleneck savings",
    "depthwise": "Depthwise ratio",
}


@dataclasses.dataclass(frozen=True)
class Window:
    """A window that moves over a row of px, for the drawing beside a question.

    Attributes:
        px: of the input.
        kernel: px.
        stride: px.
        padding: px on each side.
        places: of the output.
    """

    px: int
    kernel: int
    stride: int
    padding: int
    places: int


@dataclasses.dataclass(frozen=True)
class Exercise:
    """A question with its answer.

    Attributes:
        kind: one of KINDS.
        seed: that it was made from.
        given: what is given.
        ask: the question.
        form: what an answer looks like.
        answer: its numbers.
        worked: how they are computed, line by line.
        mistakes: wrong answers that are often given, and what is wrong with each.
        window: for the drawing.
    """

    kind: str
    seed: int
    given: str
    ask: str
    form: str
    answer: tuple[float, ...]
    worked: tuple[str, ...]
    mistakes: tuple[_Mistake, ...] = ()
    window: Window | None = None


@dataclasses.dataclass(frozen=True)
class _Conv:
    px: int
    chans: int
    filters: int
    kernel: int
    stride: int
    padding: int
    bias: bool

    @property
    def places(self) -> int:
        return (self.px + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def said(self) -> str:
        padding = f"padding {self.padding}" if self.padding else "no padding"
        bias = "each with a bias" if self.bias else "without biases"
        return (
            f"An image of {self.px}×{self.px}×{self.chans} goes through a convolution of "
            f"{self.filters} filters, {self.kernel}×{self.kernel}, stride {self.stride}, {padding}, {bias}."
        )

    @property
    def window(self) -> Window:
        return Window(self.px, self.kernel, self.stride, self.padding, self.places)


def exercise(kind: str, seed: int) -> Exercise:
    """The exercise of a kind and a seed, the same on every machine.

    Raises:
        BadRequestError: if there is no such kind.
    """
    if kind not in KINDS:
        raise BadRequestError(f"`kind`={kind[:20]!r}; expected one of {', '.join(KINDS)}")
    makers: dict[str, Callable[[int, random.Random], Exercise]] = {
        "volume": _volume,
        "params": _params,
        "macs": _macs,
        "field": _field,
        "padding": _padding,
        "bottleneck": _bottleneck,
        "depthwise": _depthwise,
    }
    return makers[kind](seed, random.Random(f"{kind} {seed}"))


def read_answer(text: str, numbers: int) -> tuple[float, ...] | None:
    """The numbers of an answer; None where it is not that many.

    Args:
        text: 55×55×96 or 55, 55, 96 where several are asked for; 34,944 or 34 944 where one is.
        numbers: how many are asked for.
    """
    text = text.strip()[:60].lower()
    if numbers == 1:
        words = [
            re.sub(r"(?<=\d)[,' \u00a0\u202f_](?=\d{3}(?!\d))", "", text).removesuffix("px").strip("×x %")
        ]
    else:
        words = re.split(r"\s*[×x*,;\s]\s*", text)
    if len(words) != numbers or not all(re.fullmatch(r"\d{1,15}(\.\d{1,6})?", word) for word in words):
        return None
    return tuple(float(word) for word in words)


def mark(question: Exercise, text: str) -> tuple[bool, str]:
    """Whether an answer is right, and what is wrong with it where that is known."""
    given = read_answer(text, len(question.answer))
    if given is None:
        return False, f"An answer looks like {question.form}."
    if _is_same(given, question.answer):
        return True, ""
    return False, next((why for wrong, why in question.mistakes if _is_same(given, wrong)), "")


def _is_same(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whole numbers exactly, others to the one digit after the point that is asked for."""
    return all(
        x == y if float(y).is_integer() else abs(x - y) <= 0.0500001 for x, y in zip(a, b, strict=True)
    )


def _conv(draw: random.Random) -> _Conv:
    kernel = draw.choice((1, 3, 3, 5, 7, 11))
    stride = draw.choice((1, 1, 2, 2, 3, 4)) if kernel > 1 else draw.choice((1, 2))
    padding = draw.choice((0, (kernel - 1) // 2))
    chans, filters = draw.choice((1, 3, 16, 32, 64, 128)), draw.choice((6, 16, 32, 64, 96, 128, 256))
    px = draw.choice((28, 32, 56, 64, 112, 128, 224, 227))
    return _Conv(px, chans, filters, kernel, stride, padding, draw.random() < 0.6)


def _side(conv: _Conv) -> str:
    text = f"({conv.px} − {conv.kernel} + 2×{conv.padding}) ÷ {conv.stride}"
    whole = (conv.px + 2 * conv.padding - conv.kernel) % conv.stride == 0
    return f"{text} + 1 = {conv.places}" if whole else f"{text}, rounded down, + 1 = {conv.places}"


def _volume(seed: int, draw: random.Random) -> Exercise:
    conv = _conv(draw)
    side, deep = conv.places, conv.filters
    again = (conv.px - conv.kernel) // conv.stride + 1
    mistakes: list[_Mistake] = [
        ((side, side, conv.chans), f"The depth is the number of filters, {deep}, not of input channels."),
        ((side - 1, side - 1, deep), "The first place counts too: add 1 after the division."),
        ((side + 1, side + 1, deep), "Where the stride does not divide, the division is rounded down."),
        ((again, again, deep), "The padding lies on both sides of the image."),
    ]
    return Exercise(
        "volume", seed, conv.said, "What is the output volume, H×W×C?", "55×55×96", (side, side, deep),
        (_side(conv), f"{side} × {side} × {deep} = {side * side * deep:,} values"),
        _other(mistakes, (side, side, deep)), conv.window,
    )  # fmt: skip


def _params(seed: int, draw: random.Random) -> Exercise:
    conv = _conv(draw)
    window = conv.kernel**2
    weights = window * conv.chans * conv.filters
    answer = weights + conv.filters * conv.bias
    flat = window * conv.filters + conv.filters * conv.bias
    mistakes: list[_Mistake] = [
        (
            (weights,),
            f"{weights:,} are the weights alone; each of the {conv.filters} filters has a bias too.",
        ),
        ((weights + conv.filters,), "These filters have no biases."),
        ((flat,), f"A filter reaches through all {conv.chans} input channels."),
    ]
    shown = f"{conv.kernel}×{conv.kernel}×{conv.chans} × {conv.filters}"
    return Exercise(
        "params", seed, conv.said, "How many parameters does it have?", "34,944", (answer,),
        (f"{shown} + {conv.filters} = {answer:,}" if conv.bias else f"{shown} = {answer:,}",),
        _other(mistakes, (answer,)), conv.window,
    )  # fmt: skip


def _macs(seed: int, draw: random.Random) -> Exercise:
    conv = _conv(draw)
    each = conv.kernel**2 * conv.chans
    values = conv.places**2 * conv.filters
    answer = each * values
    mistakes: list[_Mistake] = [
        ((2 * answer,), "A multiplication with its addition counts once here; twice that are FLOPs."),
        (
            (each * conv.px**2 * conv.filters,),
            "The filter is computed at the places of the output, not the input.",
        ),
        ((conv.kernel**2 * values,), f"A filter reaches through all {conv.chans} input channels."),
        ((each * conv.filters,), "These are of one place; the filters are computed at every one."),
    ]
    return Exercise(
        "macs", seed, conv.said, "How many multiply-adds does one image take?", "105,415,200", (answer,),
        (
            _side(conv),
            f"{conv.places} × {conv.places} × {conv.filters} = {values:,} values",
            f"{values:,} × {conv.kernel}×{conv.kernel}×{conv.chans} = {answer:,}",
        ),
        _other(mistakes, (answer,)), conv.window,
    )  # fmt: skip


def _field(seed: int, draw: random.Random) -> Exercise:
    layers = [(draw.choice((3, 3, 5, 7)), draw.choice((1, 1, 2))) for _ in range(draw.choice((2, 3, 3, 4)))]
    words = [f"a {k}×{k} convolution with stride {s}" for k, s in layers]
    size, jump, worked = 1, 1, list[str]()
    for k, s in layers:
        worked.append(f"{size} + ({k} − 1) × {jump} = {size + (k - 1) * jump}, stride so far {jump * s}")
        size, jump = size + (k - 1) * jump, jump * s
    plain = 1 + sum(k - 1 for k, _ in layers)
    mistakes: list[_Mistake] = [
        ((plain,), "Each stride makes the steps of the layers behind it larger."),
        ((sum(k for k, _ in layers),), "Windows overlap: each adds its side less one."),
    ]
    return Exercise(
        "field", seed, f"An image goes through {', then '.join(words)}.",
        "How many px does a value of the last map see, along one side?", "11", (size,),
        tuple(worked), _other(mistakes, (size,)),
    )  # fmt: skip


def _padding(seed: int, draw: random.Random) -> Exercise:
    kernel, dilation, px = (
        draw.choice((3, 5, 7, 9, 11)),
        draw.choice((1, 1, 2, 3)),
        draw.choice((28, 56, 64, 112)),
    )
    answer = dilation * (kernel - 1) // 2
    spread = f", dilation {dilation}" if dilation > 1 else ""
    mistakes: list[_Mistake] = [
        ((2 * answer,), "That is the padding of both sides together."),
        (
            ((kernel - 1) // 2,),
            f"With dilation {dilation} the window covers {dilation * (kernel - 1) + 1} px.",
        ),
        ((kernel // 2 + 1,), "The middle of the window needs no padding."),
    ]
    return Exercise(
        "padding", seed, f"A convolution of {kernel}×{kernel}, stride 1{spread}, goes over a {px}×{px} map.",
        "Which padding on each side keeps its size?", "1", (answer,),
        (
            f"the window covers {dilation} × ({kernel} − 1) + 1 = {dilation * (kernel - 1) + 1} px",
            f"{dilation} × ({kernel} − 1) ÷ 2 = {answer}",
        ),
        _other(mistakes, (answer,)), None if dilation > 1 else Window(px, kernel, 1, answer, px),
    )  # fmt: skip


def _bottleneck(seed: int, draw: random.Random) -> Exercise:
    chans, ratio = draw.choice((64, 128, 256, 512, 1024)), draw.choice((2, 4, 4, 8))
    inner = chans // ratio
    plain, narrow = 2 * 9 * chans**2, 2 * chans * inner + 9 * inner**2
    mistakes: list[_Mistake] = [
        ((narrow,), "These are the weights of the bottleneck; the question is how many fewer."),
        ((9 * chans**2 - narrow,), "The plain block has two 3×3 convolutions."),
    ]
    return Exercise(
        "bottleneck", seed,
        f"A plain block has two 3×3 convolutions of {chans} channels. A bottleneck instead goes by 1×1 "
        f"to {inner} channels, through 3×3, and by 1×1 back to {chans}. No biases.",
        "How many weights fewer does the bottleneck have?", "1,110,016", (plain - narrow,),
        (
            f"2 × 3×3×{chans} × {chans} = {plain:,}",
            f"{chans} × {inner} + 3×3×{inner} × {inner} + {inner} × {chans} = {narrow:,}",
            f"{plain:,} − {narrow:,} = {plain - narrow:,}, a factor of {plain / narrow:.1f}",
        ),
        _other(mistakes, (plain - narrow,)),
    )  # fmt: skip


def _depthwise(seed: int, draw: random.Random) -> Exercise:
    kernel, chans, filters = (
        draw.choice((3, 3, 5, 7)),
        draw.choice((32, 64, 128)),
        draw.choice((64, 128, 256, 512)),
    )
    window = kernel**2
    answer = window * filters / (window + filters)
    mistakes: list[_Mistake] = [
        ((float(window),), "The pointwise convolution costs too."),
        ((float(filters),), "The depthwise convolution costs too."),
    ]
    return Exercise(
        "depthwise", seed,
        f"A {kernel}×{kernel} convolution from {chans} to {filters} channels is replaced by a "
        f"depthwise {kernel}×{kernel} and a pointwise 1×1 convolution, on a map of the same size.",
        "How many times fewer multiply-adds is that, to one digit after the point?", "8.4", (answer,),
        (
            f"at each place {window} × {chans} × {filters} = {window * chans * filters:,}",
            f"against {window} × {chans} + {chans} × {filters} = {chans * (window + filters):,}",
            f"{window} × {filters} ÷ ({window} + {filters}) = {answer:.1f}",
        ),
        _other(mistakes, (answer,)),
    )  # fmt: skip


def _other(mistakes: Sequence[_Mistake], answer: tuple[float, ...]) -> tuple[_Mistake, ...]:
    """Those that differ from the answer."""
    return tuple(each for each in mistakes if not _is_same(each[0], answer))
