"""The knobs that one network has: the fields of its config, and how each is turned."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from convatlas.models.registry import find_config

from .settings import BadRequestError, Settings

# Knobs of their own, or of no use for sizes.
_ELSEWHERE = ("num_classes", "in_chans")
# Without effect on shapes and sizes.
_NO_SIZE = re.compile(r".*_(rate|init|eps|momentum)|zero_init_last|init_.*")
# How a value is written, and that in words.
_WRITTEN = {
    "whole": (r"[0-9]{1,6}", "a whole number"),
    "number": (r"[0-9]{1,6}|[0-9]{0,6}\.[0-9]{1,6}", "a number"),
    "range": (r"[0-9]{1,6}|[0-9]{0,6}\.[0-9]{1,6}", "a number"),
    "list": (r"[0-9]{1,6}(,[0-9]{1,6}){0,63}", "whole numbers with commas"),
}
_MULTIPLIERS = {"width_mult": (0.25, 2.0), "depth_mult": (0.25, 2.0)}


@dataclasses.dataclass(frozen=True)
class Option:
    """A knob.

    Attributes:
        name: of the field.
        label: in words.
        kind: choice, switch, range, whole, number or list.
        value: as it is now, as text.
        published: as the paper has it, as text.
        choices: what a choice allows.
        low: least of a range.
        high: largest of a range.
    """

    name: str
    label: str
    kind: str
    value: str
    published: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it is turned."""
        return self.value != self.published


def options_of(settings: Settings) -> tuple[Option, ...]:
    """The knobs that change what `size` says of a network, as they stand."""
    config = find_config(settings.network, {})
    turned = dict(settings.options)
    found: list[Option] = []
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if field.name in _ELSEWHERE or _NO_SIZE.fullmatch(field.name):
            continue
        kind, choices = _kind(hints[field.name], getattr(config, field.name))
        if not kind:
            continue
        published = _text(getattr(config, field.name))
        low, high = _MULTIPLIERS.get(field.name, (0.0, 0.0))
        value = turned.get(field.name, published)
        kind = "range" if high else kind
        found.append(Option(field.name, _label(field.name), kind, value, published, choices, low, high))
    return tuple(found)


def overrides_of(settings: Settings) -> dict[str, Any]:
    """The options of a query as values for `create_model`.

    Raises:
        UnknownNameError: if the network has no such option.
        BadRequestError: if a value is not of its kind.
    """
    config = find_config(settings.network, {})
    hints = typing.get_type_hints(type(config))
    values: dict[str, Any] = {}
    for name, text in settings.options:
        if name not in hints or not hasattr(config, name):
            find_config(settings.network, {name: text})
            raise BadRequestError(f"`{name}` cannot be set")
        kind, choices = _kind(hints[name], getattr(config, name))
        typed = {str(choice): choice for choice in get_args(hints[name])} if kind == "choice" else {}
        read = _read(name, text, kind, choices)
        values[name] = typed.get(text, read)
    return values


def _kind(hint: Any, value: object) -> tuple[str, tuple[str, ...]]:
    """How a field is turned; nothing where a text cannot say its value."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        if value is None or len(parts) != 1:
            return "", ()
        hint = parts[0]
    if get_origin(hint) is Literal:
        return "choice", tuple(map(str, get_args(hint)))
    if hint is bool:
        return "switch", ("true", "false")
    if hint is int:
        return "whole", ()
    if hint is float:
        return "number", ()
    if hint is str and value in ("avg", "max", ""):
        return "choice", ("avg", "max")
    if isinstance(value, tuple) and value and all(type(item) is int for item in value):
        return "list", ()
    return "", ()


def _read(name: str, text: str, kind: str, choices: tuple[str, ...]) -> Any:
    if kind in ("choice", "switch"):
        if text not in choices:
            raise BadRequestError(f"`{name}`={text!r}; expected one of {', '.join(choices)}")
        return text == "true" if kind == "switch" else text
    if kind not in _WRITTEN:
        raise BadRequestError(f"`{name}` cannot be set by a text; use `create_model` in Python")
    pattern, said = _WRITTEN[kind]
    if not text or not re.fullmatch(pattern, text.replace(" ", "")):
        raise BadRequestError(f"`{name}`={text!r}; expected {said}")
    if kind == "list":
        return tuple(int(word) for word in text.replace(" ", "").split(","))
    return int(text) if kind == "whole" else float(text)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        items: tuple[Any, ...] = value
        return ",".join(map(str, items))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(name: str) -> str:
    words = {"mult": "multiplier", "chans": "channels", "se": "SE"}
    label = " ".join(words.get(word, word) for word in name.split("_"))
    return label[:1].upper() + label[1:]
