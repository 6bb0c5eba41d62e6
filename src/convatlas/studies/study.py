"""What a study is made of: a claim in clauses, a protocol, and the program that measures it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from convatlas.errors import UnknownNameError, nearest, unknown
from convatlas.studies.arms import Compared
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.index import CLAIMS, FOLDERS
from convatlas.studies.knobs import KnobsT
from convatlas.studies.verdict import Fact, Judgement, judge

Values = tuple[float, ...] | list[float] | NDArray[np.float64]


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
    """What a study found. The verdict is made of it by `Study.judge`.

    Attributes:
        compared: the arms after their trainings; clauses that are contrasts of arms are computed from it.
        samples: by clause: the effect of each seed or fresh process, (S,), or of each seed and image, (S, I).
        facts: computed numbers.
        objections: why there can be no verdict, a sentence each.
        tables: for the report.
        figures: file name (ending in .png) and content of each image; that of the arms comes by itself.
        reading: what a reader should see in it, in a few sentences.
    """

    compared: Compared | None = None
    samples: Mapping[str, Values] = dataclasses.field(default_factory=dict[str, Values])
    facts: tuple[Fact, ...] = ()
    objections: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])
    reading: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Generic[KnobsT]):
    """A claim, and the program that tests it.

    Attributes:
        name: of the study, as the command line knows it.
        version: of the protocol; a changed protocol is a new version.
        source: the paper, with the table or page.
        published: the source's own numbers, a line each.
        clauses: what the claim says, each an effect with its direction or margin.
        protocol: what is trained or computed, on what, and what is measured.
        presets: knobs for "quick" (minutes), "standard" (published) and "full" (the paper's).
        run: does it.
        changes: what changed with this version, for the page.
    """

    name: str
    version: int
    source: str
    published: tuple[str, ...]
    clauses: tuple[Clause, ...]
    protocol: str
    presets: Mapping[str, KnobsT]
    run: Callable[[StudyContext[KnobsT]], Outcome]
    changes: str = ""

    def __post_init__(self) -> None:
        """Checks that the clauses are told apart.

        Raises:
            ValueError: if two clauses have one name.
        """
        names = [clause.name for clause in self.clauses]
        if len(set(names)) < len(names):
            raise ValueError(f"study {self.name}: two clauses have one name among {', '.join(names)}")

    @property
    def claim(self) -> str:
        """In a sentence."""
        return CLAIMS[self.name]

    def knobs(self, preset: str, settings: Mapping[str, Any]) -> KnobsT:
        """The knobs of a preset with some of them turned.

        Raises:
            UnknownNameError: if there is no such preset or knob; names the nearest.
            ValueError: if a value is out of its range.
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

    def judge(self, outcome: Outcome, objections: tuple[str, ...] = ()) -> Judgement:
        """The verdict on the claim.

        Args:
            outcome: of a run.
            objections: further reasons against a verdict.

        Raises:
            ValueError: if a clause was not measured.
        """
        compared = outcome.compared
        samples: dict[str, Values] = dict(outcome.samples)
        told = [*objections, *outcome.objections]
        if compared is not None:
            told += compared.objections
            for clause in self.clauses:
                if clause.arms is not None and clause.name not in samples:
                    samples[clause.name] = compared.contrast(clause.arms, clause.split)
        return judge(self.clauses, samples, outcome.facts, told)


def _like(name: str, value: Any, now: Any) -> Any:
    """The value of a knob, checked against what the knob holds now."""
    if isinstance(now, tuple) and isinstance(value, list):
        return tuple(value)
    fits = isinstance(value, type(now)) or (isinstance(now, float) and isinstance(value, int))
    if not fits or (isinstance(value, bool) and not isinstance(now, bool)):
        raise ValueError(f"`{name}`={value!r}; expected {type(now).__name__}, for example {now!r}")
    return value


def find_study(name: str) -> Study[Any]:
    """The study of that name.

    Raises:
        UnknownNameError: if there is none; names the nearest.
    """
    if name not in CLAIMS:
        raise unknown("study", name, CLAIMS)
    folder = next(folder for folder, names in FOLDERS.items() if name in names)
    return importlib.import_module(f"convatlas.studies.{folder}.{name.replace('-', '_')}").STUDY
