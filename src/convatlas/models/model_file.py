"""A network in a TOML file: its name, the fields of its config that are changed, and its input size.

    network = "efficientnet_b0"
    input_size = 248

    [overrides]
    depth_mult = 1.13
    width_mult = 1.06

`create_model`, `size`, `train`, `bench` and `export` take such a file in place of a name. Other tables are
left to whoever wrote them.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from convatlas.files import with_tuples

SUFFIX = ".toml"
_KEYS = ("network", "input_size", "overrides")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A network with options.

    Attributes:
        network: name in the registry.
        overrides: fields of its config to change.
        input_size: height and width that it is meant for, in px; None for the published size.
    """

    network: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    input_size: int | None = None

    def model_toml(self, *, comment: str = "", **tables: Mapping[str, Any]) -> str:
        """The text of the file.

        Args:
            comment: a line above.
            tables: what else to write, each as a table; values that are None are left out.
        """
        lines = [f"# {comment}"] if comment else []
        lines.append(f"network = {_literal(self.network)}")
        if self.input_size is not None:
            lines.append(f"input_size = {self.input_size}")
        for name, table in {"overrides": self.overrides, **tables}.items():
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {_literal(value)}" for key, value in table.items() if value is not None]
        return "\n".join(lines) + "\n"


def without_data(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of a config without what the data of a training decide: classes and channels."""
    return {key: value for key, value in overrides.items() if key not in ("num_classes", "in_chans")}


def read_model_file(path: str | Path) -> ModelFile:
    """Reads a network from a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, names no network, or has a key that is unknown or of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a model file, as `convatlas scale -o` writes it"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no TOML file ({error})") from None
    for key, value in data.items():
        if key not in _KEYS and not isinstance(value, dict):
            raise ValueError(f"{path}: unknown key `{key}`; a model file has {', '.join(_KEYS)}")
    network, size, overrides = data.get("network"), data.get("input_size"), data.get("overrides", {})
    if not isinstance(network, str):
        raise ValueError(
            f'{path}: `network` is missing or not text; expected network = "resnet50" or another name'
        )
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"{path}: `input_size`={size!r}; expected px, such as 224")
    if not isinstance(overrides, dict):
        raise ValueError(
            f"{path}: `overrides`={overrides!r}; expected a table, such as [overrides] width_mult = 1.1"
        )
    return ModelFile(network=network, overrides=with_tuples(cast(dict[str, Any], overrides)), input_size=size)


def is_model_file(text: str | Path) -> bool:
    """Whether a text names a model file rather than a network."""
    return str(text).endswith(SUFFIX)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, cast(list[Any], value)))}]"
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, Any], value).items()
        return f"{{{', '.join(f'{key} = {_literal(each)}' for key, each in fields)}}}"
    return repr(value)
