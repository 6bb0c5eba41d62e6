"""What a search looks for, and the space that it lies in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from convatlas.errors import UnknownNameError, nearest
from convatlas.search.costs import Costs

Choices = tuple[int, ...]
"""For each variable of a space, the number of the value that it takes."""


class SpaceError(ValueError):
    """A space, or an architecture of one, that cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What networks of a space are built for.

    Attributes:
        image_size: C, H, W.
        num_classes: K.
    """

    image_size: tuple[int, int, int] = (3, 32, 32)
    num_classes: int = 10


class Space:
    """Architectures as choices of categorical variables.

    A space of one's own sets `name`, `variables` and `values`, and may override the other methods.

    Attributes:
        name: of the space.
        variables: the name of each variable.
        values: for each variable, the values that it may take, as text.
    """

    name: str
    variables: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each variable."""
        return tuple(len(values) for values in self.values)

    @property
    def count(self) -> int:
        """Encodings, equal architectures counted apart."""
        total = 1
        for size in self.sizes:
            total *= size
        return total

    def text(self, choices: Choices) -> str:
        """The text form of an architecture."""
        return ",".join(
            f"{name}={values[i]}"
            for name, values, i in zip(self.variables, self.values, choices, strict=True)
        )

    def choices_of(self, text: str) -> Choices:
        """The architecture of a text form.

        Raises:
            ValueError: it does not parse; says where and what is allowed there.
        """
        words = [word.strip() for word in text.split(",")] if text.strip() else []
        if len(words) != len(self.variables):
            raise SpaceError(
                f"space {self.name}: {text!r} has {len(words)} values; expected one for each of "
                f"{', '.join(self.variables)}"
            )
        choices: list[int] = []
        for name, values, word in zip(self.variables, self.values, words, strict=True):
            given, equals, value = word.rpartition("=")
            if equals and given.strip() != name:
                raise SpaceError(f"space {self.name}: {word!r} stands where {name}=... is expected")
            choices.append(index_of(value.strip(), values, f"space {self.name}: `{name}`"))
        return tuple(choices)

    def key(self, choices: Choices) -> str:
        """Equal for architectures that are the same network; the text where a space knows no better."""
        return self.text(choices)

    def costs(self, choices: Choices, task: Task) -> Costs | None:
        """Exact sizes of the network for `task`; None where the space knows none."""
        return None

    def network(self, choices: Choices) -> tuple[str, dict[str, Any]]:
        """The name of the network in the registry, and the overrides that build the architecture.

        Raises:
            SpaceError: the space builds no networks.
        """
        raise SpaceError(f"space {self.name} builds no networks; give `run_search` an `evaluate` that does")

    def sample(self, rng: np.random.Generator) -> Choices:
        """An architecture by chance, each encoding as likely as any other."""
        return tuple((rng.random(len(self.sizes)) * self.sizes).astype(int).tolist())

    def mutate(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """One variable, chosen by chance, takes another value."""
        free = [i for i, size in enumerate(self.sizes) if size > 1]
        i = free[int(rng.integers(len(free)))]
        value = int(rng.integers(self.sizes[i] - 1))
        return (*choices[:i], value + (value >= choices[i]), *choices[i + 1 :])

    def neighbours(self, choices: Choices) -> list[Choices]:
        """All architectures that differ in one variable."""
        return [
            (*choices[:i], value, *choices[i + 1 :])
            for i, size in enumerate(self.sizes)
            for value in range(size)
            if value != choices[i]
        ]

    def __repr__(self) -> str:
        return f"<space {self.name}: {self.count:,} encodings>"


class Categorical(Space):
    """A space of a user's variables.

    Args:
        variables: for each variable, the values that it may take.
        name: of the space.

    Raises:
        SpaceError: there is no variable, or one without values.
    """

    def __init__(self, variables: Mapping[str, Sequence[Any]], name: str = "categorical") -> None:
        self.name = name
        self.variables = tuple(map(str, variables))
        self.values = tuple(tuple(str(value) for value in values) for values in variables.values())
        if not self.variables or not all(self.values):
            raise SpaceError(
                f"`space`={dict(variables)!r}; expected a mapping from each variable to its values"
            )
        if any("," in value for values in self.values for value in values):
            raise SpaceError("a value of `space` holds a comma, which separates values in the text form")


def index_of(value: str, values: Sequence[str], where: str) -> int:
    """The number of a value.

    Raises:
        UnknownNameError: it is not allowed there; names the nearest.
    """
    if value not in values:
        raise UnknownNameError(
            f"{where}: unknown value {value!r}; nearest: {nearest(value, values)}; "
            f"allowed are {', '.join(values)}"
        )
    return list(values).index(value)


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
    """A point of a space.

    Attributes:
        space: where it lies.
        choices: for each variable of the space, the number of its value.
    """

    space: Space
    choices: Choices

    @cached_property
    def text(self) -> str:
        """The text form; `convatlas.search.parse(space, text)` reads it."""
        return self.space.text(self.choices)

    @cached_property
    def key(self) -> str:
        """Equal for architectures that are the same network."""
        return self.space.key(self.choices)

    @property
    def values(self) -> dict[str, str]:
        """The value of each variable."""
        return {
            name: values[i]
            for name, values, i in zip(self.space.variables, self.space.values, self.choices, strict=True)
        }

    def to_json(self) -> str:
        """The architecture as JSON: its space, its text and its values."""
        return json.dumps({"space": self.space.name, "text": self.text, "values": self.values})

    def costs(self, task: Task | None = None) -> Costs | None:
        """Exact parameters, multiply-adds and activations; None where the space knows none."""
        return self.space.costs(self.choices, task or Task())

    def network(self) -> tuple[str, dict[str, Any]]:
        """The name of the network in the registry, and the overrides that build it."""
        return self.space.network(self.choices)

    def build(self, task: Task | None = None) -> Any:
        """The network, initialised: `create_model` with `network()`.

        Raises:
            SpaceError: the space builds no networks.
        """
        from convatlas.models.registry import create_model

        task = task or Task()
        name, overrides = self.network()
        return create_model(name, in_chans=task.image_size[0], num_classes=task.num_classes, **overrides)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Architecture)
            and self.choices == other.choices
            and self.space.name == other.space.name
        )

    def __hash__(self) -> int:
        return hash((self.space.name, self.choices))

    def __str__(self) -> str:
        return self.text
