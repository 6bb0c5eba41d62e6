"""Networks written in one line, for the exercises of a course.

    conv 96 11x11 /4, relu, pool 3x3 /2                       layers one after another
    [conv 64 1x1 | conv 128 3x3 same | pool 3x3 same]         branches of one input, joined along the channels
    [conv 64 3x3 same, bn, relu + identity]                   branches of one input, added: a residual sum

The grammar; words in capitals stand for numbers, brackets with a question mark may be left out:

    expression = layer, layer, ...                     separated by `,` or `;` or `->`
    layer      = conv N KxK [options]?                 N filters of K by K
               | dw KxK [options]?                     depthwise: one filter for each channel
               | pool [max | avg]? KxK [options]?      max where neither is said; also avgpool, maxpool
               | fc N [nobias]?                        fully connected; flattens what is not flat
               | relu | tanh | sigmoid | softmax | flatten
               | bn                                    batch normalisation
               | lrn                                   local response normalisation over 5 channels
               | gap                                   the mean of each channel
               | [ expression | expression | ... ]     branches, joined; the brackets are part of the language
               | [ expression + expression + ... ]     branches, added
               | identity                              in a branch: its input as it is
    options    = /S | stride S                         stride; without it 1, for `pool` K
               | pad P                                 zeros on each side; without it 0
               | valid                                 no zeros, as without `pad`
               | same                                  as many zeros as keep H and W at stride 1; for odd K
               | ceil                                  pool: a last window that is partly outside counts too
               | dilate D | groups G | nobias          conv; dw has dilate and nobias

`pool ... same` has stride 1 unless it is said. A size may be given by axis, `3x5`, `/2x1`, `pad 1x2`, or once
for both, `3`, `/2`, `pad 1`. Options come in any order, after the numbers that their layer needs.
Convolutions and fully connected layers have biases. Upper case means the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convatlas.errors import nearest

from .errors import SizingError
from .request import Request
from .tracing import trace

Shape = tuple[int, ...]
Pair = tuple[int, int]

SEPARATORS = (",", ";", "->")
# Beyond these an expression is a slip of the keyboard.
MOST = 1_000_000
DEEPEST = 20
# Up to this many px a smaller input is looked for that works.
LARGEST = 512
_TOKEN = re.compile(r"->|[,;|+\[\]]|[^\s,;|+\[\]]+?(?=->|[\s,;|+\[\]]|$)")
# Other names of layers and options.
_SYNONYMS = {"avgpool": "pool", "maxpool": "pool", "stride": "/S"}
_ENDS = ("", "|", "+", "[", "]")


class ExpressionError(ValueError):
    """An expression that cannot be read or built; it says the word at fault and what is allowed."""


class _MisfitError(ExpressionError):
    """A layer does not fit what reaches it; a larger input may help."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A word of an expression.

    Attributes:
        text: itself; "" for the end.
        place: its first character, counted from 1.
    """

    text: str
    place: int


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer as written.

    Attributes:
        word: its name.
        chans: N, where it has one.
        kernel: K per axis.
        stride: S per axis; None where it is not said.
        padding: P per axis; None for `same`.
        dilation: D per axis.
        groups: G.
        bias: whether it has biases.
        average: pool: the mean rather than the largest.
        ceil: pool: count windows that are partly outside.
    """

    word: Word
    chans: int = 0
    kernel: Pair = (1, 1)
    stride: Pair | None = None
    padding: Pair | None = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    average: bool = False
    ceil: bool = False


@dataclasses.dataclass(frozen=True)
class Branches:
    """Branches as written, with the bracket that opens them; `added` if their outputs are summed."""

    word: Word
    branches: tuple[tuple[Layer | Branches, ...], ...]
    added: bool = False


class Joined(nn.ModuleDict):
    """Runs branches on one input and joins their outputs along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of the branches' channels, H', W')."""
        return torch.cat([branch(x) for branch in self.values()], 1)


class Added(nn.ModuleDict):
    """Runs branches on one input and adds their outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        first, *others = [branch(x) for branch in self.values()]
        for other in others:
            first = first + other
        return first


# Numbers that a layer needs, and options that it may have.
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv": (("N", "KxK"), ("/S", "pad P", "same", "valid", "dilate D", "groups G", "nobias")),
    "dw": (("KxK",), ("/S", "pad P", "same", "valid", "dilate D", "nobias")),
    "pool": (("KxK",), ("max", "avg", "/S", "pad P", "same", "valid", "ceil")),
    "fc": (("N",), ("nobias",)),
    "relu": ((), ()),
    "flatten": ((), ()),
    "gap": ((), ()),
    "bn": ((), ()),
    "lrn": ((), ()),
    "tanh": ((), ()),
    "sigmoid": ((), ()),
    "softmax": ((), ()),
    "identity": ((), ()),
}


def is_expression(text: str) -> bool:
    """Whether `text` is meant as an expression: it begins with a bracket or a layer's word, or has spaces."""
    words = _TOKEN.findall(text.lower())
    known = {*LAYERS, *_SYNONYMS, "["}
    return bool(words) and (words[0] in known or " " in text.strip())


def build(expression: str, input_shape: Shape) -> nn.Sequential:
    """Builds the network of an expression on torch's default device.

    Args:
        expression: in the language of this module.
        input_shape: (C, H, W) of the images.

    Returns:
        A sequence whose layers are named by kind and number, `conv1`, and branches by letter, `join1.a`; its
            attribute `name` is the expression.

    Raises:
        ExpressionError: a word cannot be read, or a layer does not fit what reaches it.
    """
    if len(input_shape) != 3:
        shown = ",".join(map(str, input_shape))
        raise ExpressionError(f"input {shown} of an expression; expected C,H,W, such as 3,227,227")
    layers = parse(expression)
    try:
        net = _on_meta(expression, layers, tuple(input_shape))
    except _MisfitError as error:
        raise ExpressionError(f"{error}{_smallest(expression, layers, input_shape[0])}") from error
    device = torch.get_default_device()
    if device.type != "meta":
        net = net.to_empty(device=device)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    net.name = " ".join(expression.split())  # type: ignore[assignment]
    return net


def _on_meta(expression: str, layers: tuple[Layer | Branches, ...], shape: Shape) -> nn.Sequential:
    with torch.device("meta"):
        return _Builder(expression).sequence(layers, shape)[0]


def _smallest(expression: str, layers: tuple[Layer | Branches, ...], chans: int) -> str:
    for px in range(1, LARGEST + 1):
        try:
            _on_meta(expression, layers, (chans, px, px))
        except ExpressionError:
            continue
        return f"; the smallest input that works is {chans}x{px}x{px}"
    return ""


def parse(expression: str) -> tuple[Layer | Branches, ...]:
    """Reads an expression.

    Raises:
        ExpressionError: a word cannot be read.
    """
    return _Parser(expression).all()


def _error(expression: str, word: Word, message: str) -> ExpressionError:
    where = f"at {word.text!r}, character {word.place}" if word.text else "at its end"
    return ExpressionError(f"cannot read {' '.join(expression.split())!r} {where}: {message}")


class _Parser:
    def __init__(self, expression: str) -> None:
        self.expression = expression
        read = expression.lower().replace("×", "x")
        self.words = [Word(m[0], m.start() + 1) for m in _TOKEN.finditer(read)]
        self.words.append(Word("", len(expression) + 1))
        self.next = 0
        self.depth = 0

    @property
    def word(self) -> Word:
        return self.words[self.next]

    def take(self) -> Word:
        word = self.word
        self.next += bool(word.text)
        return word

    def fail(self, word: Word, message: str) -> ExpressionError:
        return _error(self.expression, word, message)

    def all(self) -> tuple[Layer | Branches, ...]:
        layers = self.sequence()
        if self.word.text in ("|", "+"):
            message = f"`{self.word.text}` parts branches inside [ ]; layers are separated by `,`"
            raise self.fail(self.word, message)
        if self.word.text:
            raise self.fail(self.word, "no bracket is open here")
        return layers

    def sequence(self) -> tuple[Layer | Branches, ...]:
        layers = [self.layer()]
        while self.word.text in SEPARATORS:
            self.take()
            after = self.word
            if after.text in ("", "|", "+", "]"):
                break
            layers.append(self.layer())
        return tuple(layers)

    def layer(self) -> Layer | Branches:
        word = self.take()
        if word.text == "[":
            return self.branches(word)
        name = _SYNONYMS.get(word.text, word.text)
        if name not in LAYERS:
            close = f"; nearest: {nearest(word.text, LAYERS).split(',')[0]}" if word.text.isalpha() else ""
            raise self.fail(word, f"expected a layer: {', '.join(LAYERS)} or [ ... | ... ]{close}")
        average = word.text == "avgpool"
        return self.options(self.numbers(Layer(Word(name, word.place), average=average)))

    def branches(self, opened: Word) -> Branches:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fail(opened, f"brackets are nested more than {DEEPEST} deep")
        branches = [self.sequence()]
        sign = self.word.text if self.word.text in ("|", "+") else ""
        while sign and self.word.text == sign:
            self.take()
            branches.append(self.sequence())
        if sign and self.word.text in ("|", "+"):
            raise self.fail(self.word, "a bracket has `|` or `+` between its branches, not both")
        if self.word.text != "]":
            raise self.fail(
                self.word, f"the bracket at character {opened.place} is not closed; expected `|`, `+` or `]`"
            )
        self.take()
        self.depth -= 1
        return Branches(opened, tuple(branches), added=sign == "+")

    def numbers(self, layer: Layer) -> Layer:
        name = layer.word.text
        if name == "pool" and self.word.text in ("max", "avg"):
            layer = dataclasses.replace(layer, average=self.take().text == "avg")
        for needed in LAYERS[name][0]:
            if needed == "N":
                what = "the number of filters" if name == "conv" else "the number of outputs"
                layer = dataclasses.replace(layer, chans=self.number(f"{what}, such as `{name} 64`"))
            else:
                layer = dataclasses.replace(layer, kernel=self.pair("the window, such as 3x3"))
        return layer

    def options(self, layer: Layer) -> Layer:
        name = layer.word.text
        allowed = LAYERS[name][1]
        while self.word.text not in (*_ENDS, *SEPARATORS):
            word = self.take()
            key = "/S" if word.text.startswith("/") else _SYNONYMS.get(word.text, word.text)
            if key not in {option.split()[0] for option in allowed}:
                options = f"{name} takes {', '.join(allowed)}" if allowed else f"{name} takes no options"
                raise self.fail(word, f"{options}; layers are separated by `,`")
            layer = self.option(layer, word, key)
        if self.word.text == "[":
            raise self.fail(self.word, "layers are separated by `,`")
        return layer

    def option(self, layer: Layer, word: Word, key: str) -> Layer:
        replace = dataclasses.replace
        if word.text == "stride":
            return replace(layer, stride=self.pair("the stride, such as `stride 2`"))
        if key == "/S":
            return replace(
                layer, stride=self.read_pair(dataclasses.replace(word, text=word.text[1:]), word, "a stride")
            )
        if key == "pad":
            return replace(layer, padding=self.pair("the padding, such as `pad 1`", least=0))
        if key == "valid":
            return replace(layer, padding=(0, 0))
        if key == "same":
            if not all(k % 2 for k in layer.kernel):
                shown = "x".join(map(str, layer.kernel))
                raise self.fail(word, f"a window of {shown} has no middle; write `pad P`, or an odd window")
            return replace(layer, padding=None)
        if key == "dilate":
            return replace(layer, dilation=self.pair("the dilation, such as `dilate 2`"))
        if key == "groups":
            return replace(layer, groups=self.number("the number of groups, such as `groups 2`"))
        if key in ("max", "avg"):
            return replace(layer, average=key == "avg")
        return replace(layer, ceil=True) if key == "ceil" else replace(layer, bias=False)

    def number(self, what: str) -> int:
        word = self.take()
        if not re.fullmatch(r"0*[1-9][0-9]{0,6}", word.text) or int(word.text) > MOST:
            raise self.fail(word, f"expected {what}: a whole number from 1 to {MOST:,}")
        return int(word.text)

    def pair(self, what: str, least: int = 1) -> Pair:
        word = self.take()
        return self.read_pair(word, word, what, least)

    def read_pair(self, word: Word, shown: Word, what: str, least: int = 1) -> Pair:
        match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", word.text, re.IGNORECASE)
        if not match or min(values := (int(match[1]), int(match[2] or match[1]))) < least:
            raise self.fail(shown, f"expected {what}: a whole number of at least {least}, or two as 3x5")
        return values


class _Builder:
    def __init__(self, expression: str) -> None:
        self.expression = expression

    def sequence(
        self, layers: tuple[Layer | Branches, ...], shape: Shape, in_branch: bool = False
    ) -> tuple[nn.Sequential, Shape]:
        children: OrderedDict[str, nn.Module] = OrderedDict()
        counts: dict[str, int] = {}

        def add(kind: str, module: nn.Module) -> None:
            counts[kind] = counts.get(kind, 0) + 1
            children[f"{kind}{counts[kind]}"] = module

        for layer in layers:
            if isinstance(layer, Branches):
                module, shape = self.joined(layer, shape)
                add("add" if layer.added else "join", module)
                continue
            if layer.word.text == "fc" and len(shape) > 1:
                flatten = nn.Flatten()
                add("flatten", flatten)
                shape = self.passed(flatten, layer.word, shape)
            if layer.word.text not in _ANY_SHAPE and len(shape) != 3:
                message = f"{layer.word.text} needs C x H x W, but {_shown(shape)} reaches it"
                raise self.fail(layer.word, message)
            try:
                # What other branches read too must not be overwritten.
                own = bool(children) or not in_branch
                module = self.module(layer, shape, own)
            except (RuntimeError, OverflowError) as error:
                raise self.fail(
                    layer.word, f"its weights would be too many ({_shown(shape)} reaches it)"
                ) from error
            add(layer.word.text, module)
            shape = self.passed(module, layer.word, shape)
        return nn.Sequential(children), shape

    def joined(self, branches: Branches, shape: Shape) -> tuple[nn.Module, Shape]:
        built = [self.sequence(branch, shape, in_branch=True) for branch in branches.branches]
        shapes = [out for _, out in built]
        nets = {_letter(i): net for i, (net, _) in enumerate(built)}
        if branches.added:
            if len(set(shapes)) > 1:
                shown = ", ".join(map(_shown, shapes))
                raise self.fail(branches.word, f"branches cannot be added, their outputs differ: {shown}")
            return Added(nets), shapes[0]
        if len({out[1:] for out in shapes}) > 1:
            shown = ", ".join(map(_shown, shapes))
            message = f"branches cannot be joined, their outputs differ in more than channels: {shown}"
            raise self.fail(branches.word, message)
        return Joined(nets), (sum(out[0] for out in shapes), *shapes[0][1:])

    def module(self, layer: Layer, shape: Shape, own: bool) -> nn.Module:
        name = layer.word.text
        if name == "pool":
            return _pool(layer)
        if name in ("conv", "dw"):
            return self.conv(layer, shape[0])
        if name == "fc":
            return nn.Linear(shape[0], layer.chans, bias=layer.bias)
        if name == "bn":
            return nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])
        if name == "relu":
            return nn.ReLU(inplace=own)
        return _PLAIN[name]()

    def conv(self, layer: Layer, chans: int) -> nn.Module:
        out, groups = (chans, chans) if layer.word.text == "dw" else (layer.chans, layer.groups)
        if chans % groups or out % groups:
            raise self.fail(
                layer.word, f"{chans} channels in and {out} out do not split into {groups} groups"
            )
        return nn.Conv2d(
            chans,
            out,
            layer.kernel,
            layer.stride or 1,
            _padding(layer),
            layer.dilation,
            groups,
            bias=layer.bias,
        )

    def passed(self, module: nn.Module, word: Word, shape: Shape) -> Shape:
        """The shape after a layer, by the same rules that size any network."""
        given = Request(module, ((1, *shape),), (torch.float32,), torch.float32, train=False, optimizer="sgd")
        try:
            return trace(given).output[1:]
        except SizingError as error:
            reason = str(error).split(": ", 1)[1].split(" (")[0]
            message = f"{reason}; {_shown(shape)} reaches it"
            raise _MisfitError(str(self.fail(word, message))) from error

    def fail(self, word: Word, message: str) -> ExpressionError:
        where = f"{word.text!r}, character {word.place}"
        return ExpressionError(f"cannot build {' '.join(self.expression.split())!r} at {where}: {message}")


_ANY_SHAPE = ("fc", "relu", "flatten", "bn", "tanh", "sigmoid", "softmax", "identity")
_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "flatten": nn.Flatten,
    "identity": nn.Identity,
    "lrn": lambda: nn.LocalResponseNorm(5),
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(1),
    "tanh": nn.Tanh,
    "gap": lambda: nn.AdaptiveAvgPool2d(1),
}


def _padding(layer: Layer) -> Pair:
    if layer.padding is not None:
        return layer.padding
    (h, w), (a, b) = layer.kernel, layer.dilation
    return a * (h - 1) // 2, b * (w - 1) // 2


def _pool(layer: Layer) -> nn.Module:
    stride = layer.stride or ((1, 1) if layer.padding is None else layer.kernel)
    kind = nn.AvgPool2d if layer.average else nn.MaxPool2d
    return kind(layer.kernel, stride, _padding(layer), ceil_mode=layer.ceil)


def _letter(index: int) -> str:
    """Names of branches: a, b, ... z, a1, b1, ..."""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
