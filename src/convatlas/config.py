"""Settings: nested frozen dataclasses, changed by dotted names and written as TOML.

What a field may hold is read from its annotation, so a new field needs no line here.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from convatlas.errors import UnknownNameError, nearest

T = TypeVar("T")


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """Reads "field=value" items; values are TOML (30, 0.1, true, {degrees = 5.0}), or else text.

    Raises:
        ValueError: an item has no "=".
    """
    settings: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"`--set {item}`; expected FIELD=VALUE, for example epochs=10")
        try:
            settings[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[name.strip()] = text.strip()
    return settings


def change(value: T, settings: Mapping[str, Any], path: str = "") -> T:
    """A dataclass with fields replaced.

    A name with dots goes into a part: "augment.pad_crop.pad". A part is also replaced as a whole, by a
    mapping of its fields, by its kind ("cosine"), or by "none" where it may be missing. The order of the
    settings does not matter.

    Args:
        value: an instance of a frozen dataclass.
        settings: values by name.
        path: where `value` itself stands, for messages; "" for the whole.

    Raises:
        UnknownNameError: a field or kind does not exist; names the nearest.
        ValueError: a value does not fit.
    """
    hints = typing.get_type_hints(type(value))
    whole: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, setting in settings.items():
        head, _, rest = name.partition(".")
        if head not in hints:
            raise _no_field(type(value), path, head, setting)
        if rest:
            inner.setdefault(head, {})[rest] = setting
        else:
            whole[head] = setting
    for head, given in whole.items():
        whole[head] = read(hints[head], given, f"{path}{head}")
    for head, parts in inner.items():
        whole[head] = _change_part(hints[head], whole.get(head, getattr(value, head)), parts, f"{path}{head}")
    return dataclasses.replace(typing.cast(Any, value), **whole)


def build(kind: type[T], entry: Mapping[str, Any], path: str = "") -> T:
    """Makes a dataclass from a mapping of its fields; missing ones keep their defaults.

    Raises:
        UnknownNameError: a field does not exist; names the nearest.
        ValueError: a field without default is missing, or a value does not fit.
    """
    hints = typing.get_type_hints(kind)
    for name, given in entry.items():
        if name not in hints:
            raise _no_field(kind, path, name, given)
    for field in dataclasses.fields(typing.cast(Any, kind)):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in entry:
            raise ValueError(f"`{path}{field.name}` is missing")
    return kind(**{name: read(hints[name], given, f"{path}{name}") for name, given in entry.items()})


def read(hint: Any, given: Any, name: str) -> Any:
    """A value as its annotation wants it: text, lists and mappings become what they stand for.

    Args:
        hint: the annotation.
        given: as read from TOML, or a value of the right type already.
        name: of the field, for messages.

    Raises:
        UnknownNameError: a field or kind does not exist; names the nearest.
        ValueError: the value does not fit the annotation.
    """
    kinds = _kinds(hint)
    if given == "none" and type(None) in _options(hint):
        return None
    if kinds and isinstance(given, str) and (len(kinds) > 1 or "kind" in _fields(*kinds.values())):
        given = {"kind": given}
    if kinds and isinstance(given, Mapping):
        fields = dict(typing.cast(Mapping[str, Any], given))
        kind = fields.pop("kind", "") if len(kinds) > 1 else next(iter(kinds))
        if not isinstance(kind, str) or kind not in kinds:
            raise UnknownNameError(f"`{name}.kind`={kind!r}; allowed are {', '.join(map(repr, kinds))}")
        return build(kinds[kind], fields, f"{name}.")
    if isinstance(given, list):
        given = _as_tuple(given)
    if not any(_fits(option, given) for option in _options(hint)):
        raise ValueError(f"`{name}`={given!r}; expected {_say(hint)}")
    return given


def check_types(value: Any) -> None:
    """Refuses a dataclass one of whose fields does not hold what its annotation says.

    Raises:
        ValueError: if a value is not allowed; names the field.
    """
    for name, hint in typing.get_type_hints(type(value)).items():
        given = getattr(value, name)
        if not any(_fits(option, given) for option in _options(hint)):
            raise ValueError(f"`{name}`={given!r}; expected {_say(hint)}")


def to_toml(value: Any, path: str = "") -> str:
    """Writes a dataclass as TOML that `build` reads back; what is None is left out."""
    hints = typing.get_type_hints(type(value))
    fields = {name: getattr(value, name) for name in hints if getattr(value, name) is not None}
    parts = {name: part for name, part in fields.items() if dataclasses.is_dataclass(part)}
    lines = [f"{name} = {_literal(part)}" for name, part in fields.items() if name not in parts]
    for name, part in parts.items():
        kind = [f'kind = "{kind_of(type(part))}"'] if len(_kinds(hints[name])) > 1 else []
        body = to_toml(part, f"{path}{name}.").rstrip("\n")
        lines += ["", f"[{path}{name}]", *kind, *([body] if body else [])]
    return "\n".join(lines) + "\n"


def _change_part(hint: Any, current: Any, parts: dict[str, Any], name: str) -> Any:
    """A part with some of its fields changed; a part that is missing starts from its defaults."""
    kinds = _kinds(hint)
    if not kinds:
        raise ValueError(f"`{name}.{next(iter(parts))}`: `{name}` is {_say(hint)}, which has no fields")
    chosen = parts.get("kind") if len(kinds) > 1 else None
    if current is None or (chosen is not None and chosen != kind_of(type(current))):
        return read(hint, parts, name)
    kept = {key: part for key, part in parts.items() if chosen is None or key != "kind"}
    return change(current, kept, f"{name}.")


def _no_field(kind: type, path: str, name: str, given: Any) -> UnknownNameError:
    owner = f"`{path.removesuffix('.')}`" if path else f"a {kind.__name__.lower()}"
    fields = list(typing.get_type_hints(kind))
    return UnknownNameError(
        f"{owner} has no field `{name}` (received {given!r}); "
        + (f"nearest: {nearest(name, fields)}" if fields else "it has none")
    )


def _kinds(hint: Any) -> dict[str, type[Any]]:
    """The dataclasses that an annotation allows, by their names in TOML."""
    classes = [option for option in _options(hint) if isinstance(option, type)]
    return {kind_of(option): option for option in classes if dataclasses.is_dataclass(option)}


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(typing.cast(Any, kind))]


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def kind_of(option: type) -> str:
    """The name of a dataclass in TOML: OneCycle is "one_cycle"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", getattr(option, "__name__", "")).lower()


def _fits(option: Any, given: Any) -> bool:
    if typing.get_origin(option) is typing.Literal:
        return given in typing.get_args(option)
    if typing.get_origin(option) is tuple:
        inner = typing.get_args(option)
        if not isinstance(given, tuple):
            return False
        items = typing.cast(tuple[Any, ...], given)
        if inner[-1] is Ellipsis:
            return all(_fits(inner[0], item) for item in items)
        return len(items) == len(inner) and all(map(_fits, inner, items))
    if option in (int, float) and isinstance(given, bool):
        return False
    return isinstance(given, int | float) if option is float else isinstance(given, option)


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}


def _say(hint: Any) -> str:
    """An annotation in words."""
    kinds = _kinds(hint)
    said: list[str] = []
    if len(kinds) > 1:
        said.append(f"one of {', '.join(map(repr, kinds))}")
    elif kinds:
        said.append(f"{{{', '.join(f'{field} = ...' for field in _fields(*kinds.values()))}}}")
    for option in _options(hint):
        if typing.get_origin(option) is typing.Literal:
            said.append(f"one of {', '.join(map(repr, typing.get_args(option)))}")
        elif typing.get_origin(option) is tuple:
            inner = [item for item in typing.get_args(option) if item is not Ellipsis]
            said.append(f"a list of {' and '.join(map(_say, inner))}")
        elif option in _NAMES:
            said.append(_NAMES[option])
    return " or ".join(said)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, typing.cast(list[Any], value))) if isinstance(value, list) else value


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, typing.cast(tuple[Any, ...], value)))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
