"""What is asked of a network: its knobs, read from a query and written back as one. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from convatlas.catalog.cards import find_card
from convatlas.errors import nearest

DTYPES = ("float32", "bfloat16", "float16", "float64")
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}
OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")
LARGEST_PX = 65_536
LARGEST_BATCH = 1_048_576
LARGEST_CLASSES = 10_000_000
MOST_OPTIONS = 16
LONGEST_OPTION = 120
ALIASES = {"batch_size": "batch", "num_classes": "classes"}
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,39}")


class BadRequestError(ValueError):
    """A parameter that cannot be understood; the message names it and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A network with its knobs.

    Attributes:
        network: its name in the registry.
        input_size: C, H, W.
        batch: B.
        dtype: name of the dtype of parameters and activations.
        optimizer: for training memory.
        options: fields of its config that are changed, as they were written; sorted by name.
    """

    network: str
    input_size: tuple[int, int, int]
    batch: int = 1
    dtype: str = "float32"
    optimizer: str = "momentum"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def as_published(self) -> Settings:
        """The same network without any knob turned."""
        return Settings(self.network, find_card(self.network).input_size)

    def query(self) -> dict[str, str]:
        """The parameters that differ from the published setting."""
        plain = self.as_published
        found = dict(self.options)
        if self.input_size != plain.input_size:
            found["input"] = self.input_text
        for name in ("batch", "dtype", "optimizer"):
            if getattr(self, name) != getattr(plain, name):
                found[name] = str(getattr(self, name))
        return {name: found[name] for name in sorted(found)}

    @property
    def input_text(self) -> str:
        """The input as it is written in a query: px where it is a square of the published channels."""
        chans, height, width = self.input_size
        square = height == width and chans == self.as_published.input_size[0]
        return str(height) if square else f"{chans},{height},{width}"

    def suffix(self) -> str:
        """`?` and the query; nothing where it is empty."""
        query = self.query()
        return f"?{urlencode(query, safe=',')}" if query else ""


def read_settings(network: str, query: Mapping[str, str], view: Sequence[str] = ()) -> Settings:
    """Reads the knobs of a network.

    Args:
        network: a name or an alias.
        query: parameters; those that are no knob of every network are options of its config.
        view: names of parameters that belong to the page and are left alone.

    Raises:
        UnknownNameError: if there is no such network.
        BadRequestError: if a value is out of range.
    """
    card = find_card(network)
    given = {ALIASES.get(name, name): value.strip() for name, value in query.items() if name not in view}
    given.pop("network", None)
    size = given.pop("input", "")
    batch = _count("batch", given.pop("batch", "1") or "1", LARGEST_BATCH)
    dtype = given.pop("dtype", "float32") or "float32"
    optimizer = given.pop("optimizer", "momentum") or "momentum"
    if classes := given.pop("classes", ""):
        given["num_classes"] = str(_count("classes", classes, LARGEST_CLASSES, least=0))
    return Settings(
        card.name,
        _read_input(size, card.input_size) if size else card.input_size,
        batch,
        _choice("dtype", SHORT_DTYPES.get(dtype, dtype), DTYPES),
        _choice("optimizer", optimizer, OPTIMIZERS),
        _options(given),
    )


def _options(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    options = {name: value for name, value in given.items() if value}
    if len(options) > MOST_OPTIONS:
        raise BadRequestError(f"{len(options)} options are given; expected at most {MOST_OPTIONS}")
    for name, value in options.items():
        if not _OPTION.fullmatch(name):
            raise BadRequestError(f"parameter {name[:40]!r} is unknown; a knob is named as in `size`")
        if len(value) > LONGEST_OPTION:
            raise BadRequestError(f"`{name}` has {len(value)} letters; expected at most {LONGEST_OPTION}")
    return tuple(sorted(options.items()))


def _read_input(text: str, published: tuple[int, int, int]) -> tuple[int, int, int]:
    words = text.replace(" ", "").split(",")
    if len(words) not in (1, 3) or not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        raise BadRequestError(f"`input`={text[:40]!r}; expected px, such as 224, or C,H,W, such as 3,224,224")
    sizes = tuple(_count("input", word, LARGEST_PX) for word in words)
    return (published[0], sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1], sizes[2])


def _count(name: str, text: str, most: int, least: int = 1) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
    if not least <= value <= most:
        raise BadRequestError(f"`{name}`={text[:40]!r}; expected a whole number from {least} to {most:,}")
    return value


def _choice(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        close = nearest(value[:40], allowed).split(",")[0]
        raise BadRequestError(
            f"`{name}`={value[:40]!r}; expected one of {', '.join(allowed)}; nearest: {close}"
        )
    return value
