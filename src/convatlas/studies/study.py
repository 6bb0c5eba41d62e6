"""What a study is made of."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from convatlas.errors import UnknownNameError, nearest, unknown
from convatlas.models.network import check_count
from convatlas.studies.index import CLAIMS
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from convatlas.studies.context import StudyContext

PRESETS = ("quick", "standard", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """What can be turned in every study; each study adds its own.

    Attributes:
        seeds: how many seeds; an interval needs at least two.
        first_seed: the seeds are this one and those that follow.
    """

    seeds: int = 3
    first_seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a count is out of its range.
        """
        check_count("seeds", self.seeds, least=1)
        check_count("first_seed", self.first_seed, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingKnobs(Knobs):
    """What can be turned in every study that trains.

    Attributes:
        data: name of the data set.
        images: training images, the same share of each class; 0 for all.
        test_images: test images.
        px: height and width that small images are brought to; 0 for their own.
        epochs: passes over the training images.
    """

    data: str = "fashion-mnist"
    images: int = 0
    test_images: int = 0
    px: int = 0
    epochs: int = 1

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a count is out of its range.
        """
        super().__post_init__()
        for name, least in (("images", 0), ("test_images", 0), ("px", 0), ("epochs", 1)):
            check_count(name, getattr(self, name), least=least)


KnobsT = TypeVar("KnobsT", bound=Knobs)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: one line.
        columns: headings.
        rows: cells, as text.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a study found.

    Attributes:
        findings: effects and facts; those that decide give the verdict.
        tables: for the report.
        figures: file name (ending in .png) and content of each image, the main one first.
        reading: what a reader should see in it, in a few sentences, computed numbers put in.
    """

    findings: tuple[Effect | Fact, ...]
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])
    reading: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Generic[KnobsT]):
    """A claim, and the program that tests it.

    Attributes:
        name: of the study, as the command line knows it.
        source: the paper, with the table or page.
        published: the source's own numbers, a line each.
        protocol: what is trained or computed, on what, and what is measured.
        refuted_by: what result would refute the claim.
        presets: knobs for "quick" (at most 10 minutes on 2 cores), "standard" (about an hour) and "full".
        run: does it.
    """

    name: str
    source: str
    published: tuple[str, ...]
    protocol: str
    refuted_by: str
    presets: Mapping[str, KnobsT]
    run: Callable[[StudyContext[KnobsT]], Outcome]

    @property
    def claim(self) -> str:
        """In a sentence."""
        return CLAIMS[self.name]

    def knobs(self, preset: str, settings: Mapping[str, Any]) -> KnobsT:
        """The knobs of a preset with some of them turned.

        Raises:
            UnknownNameError: no such preset or knob; names the nearest.
            ValueError: a value is out of its range.
        """
        if preset not in self.presets:
            raise unknown("preset", preset, self.presets)
        base = self.presets[preset]
        fields = [field.name for field in dataclasses.fields(base)]
        turned: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in fields:
                near = nearest(name, fields)
                raise UnknownNameError(
                    f"study {self.name} has no knob `{name}` (received {value!r}); nearest: {near}"
                )
            turned[name] = _like(name, value, getattr(base, name))
        return dataclasses.replace(base, **turned)


def _like(name: str, value: Any, now: Any) -> Any:
    """The value of a knob, checked against what the knob holds now."""
    if isinstance(now, tuple) and isinstance(value, list):
        return tuple(value)
    fits = isinstance(value, type(now)) or (isinstance(now, float) and isinstance(value, int))
    if not fits:
        raise ValueError(f"`{name}`={value!r}; expected {type(now).__name__}, for example {now!r}")
    return value


def find_study(name: str) -> Study[Any]:
    """The study of that name.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in CLAIMS:
        raise unknown("study", name, CLAIMS)
    return importlib.import_module(f"convatlas.studies.{name.replace('-', '_')}").STUDY
