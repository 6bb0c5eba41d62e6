"""`ModelSpec`: which network weights belong to, as the header of every file that holds weights says it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from convatlas.catalog.cards import find_card
from convatlas.data.transforms import Transform, read_transform
from convatlas.models.network import Network
from convatlas.models.registry import create_model, find_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that is needed to build a network again, its weights excepted.

    Attributes:
        name: in the registry.
        transform: brings an image to what the network sees; its `input_size` holds the channels.
        class_names: K names, in the order of the logits.
        overrides: fields of the network's `Config` that differ from its variant's, as JSON can hold them.
    """

    name: str
    transform: Transform
    class_names: tuple[str, ...]
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Refuses overrides that a file could not hold.

        Raises:
            ValueError: an override is neither a number, a text, a truth value, None nor a list of these.
        """
        for field, value in self.overrides.items():
            if not _is_plain(value):
                raise ValueError(
                    f"`model`: {field}={value!r} cannot be written into a file; "
                    "expected a number, a text, a truth value or a list of these"
                )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def build(self, *, pretrained: bool | str = False) -> Network[Any]:
        """Builds the network, with `transform` and `class_names` set.

        Args:
            pretrained: as `create_model` takes it.

        Raises:
            UnknownNameError: no such network, option or weights; names the nearest.
            WeightsError: the published weights cannot be had, or do not fit the overrides.
            ValueError: an override is out of its range.
        """
        net = create_model(
            self.name,
            pretrained=pretrained,
            num_classes=self.num_classes,
            in_chans=self.transform.input_size[0],
            **self.overrides,
        )
        net.transform, net.class_names = self.transform, self.class_names
        return net

    def header(self) -> dict[str, str]:
        """The spec as texts by name, for the header of a safetensors file or a file's metadata."""
        return {
            "network": self.name,
            "model": json.dumps(dict(self.overrides), sort_keys=True),
            "num_classes": str(self.num_classes),
            "class_names": json.dumps(self.class_names),
            "transform": self.transform.record(),
        }

    @classmethod
    def from_header(cls, header: Mapping[str, str]) -> Self:
        """Reads what `header` wrote.

        Raises:
            KeyError: a name is missing.
            ValueError: a text is damaged, or the network is unknown.
        """
        names = json.loads(header["class_names"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"`class_names`={header['class_names'][:40]!r}; expected a list of names")
        if len(names) != int(header["num_classes"]):
            raise ValueError(f"names {len(names)} classes for {header['num_classes']} logits")
        overrides = json.loads(header.get("model", "{}"))
        if not isinstance(overrides, dict):
            raise ValueError(f"`model`={header['model'][:40]!r}; expected fields with their values")
        return cls(
            name=find_card(header["network"]).name,
            transform=read_transform(header["transform"]),
            class_names=tuple(names),
            overrides={field: _with_tuples(value) for field, value in overrides.items()},
        )


def overrides_of(net: Network[Any]) -> dict[str, Any]:
    """The fields of a network's `Config` that differ from its variant's; class count and channels aside."""
    base = find_config(net.name, {})
    return {
        field.name: getattr(net.config, field.name)
        for field in dataclasses.fields(base)
        if field.name not in ("num_classes", "in_chans")
        and getattr(net.config, field.name) != getattr(base, field.name)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _with_tuples(value: Any) -> Any:
    """Lists as the tuples that a frozen `Config` holds."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
