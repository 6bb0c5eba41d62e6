r"""Key tables: how another library's module paths become ours. The data lie in `keymaps/*.toml`.

A file holds one `[[table]]` for each source and group of networks:

    [[table]]
    source = "torchvision"
    networks = ["resnet*"]               # our names, shell patterns allowed
    theirs = {resnet50_v1_5 = "resnet50"}  # their constructor, where its name is not ours
    drop = ['fc_aux\..*']               # their keys that have no place in ours
    [table.models]                       # their models of these keys, and options each needs; the usual first
    'tf_resnet*' = {norm_eps = 1e-3}
    [table.modules]                      # their module path -> ours; the first that matches wins
    'layer1\.(\d+)\.conv1' = 'stages.0.\1.conv1.conv'

The name of the parameter (weight, bias, running_mean, ...) is kept.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from convatlas.errors import nearest
from convatlas.weights.errors import WeightsError

KEYMAPS = Path(__file__).parent / "keymaps"


@dataclasses.dataclass(frozen=True)
class KeyTable:
    """From one library's keys to ours, for a group of networks.

    Attributes:
        source: the other library, for example "timm".
        networks: our names, as shell patterns.
        modules: pairs of a pattern for their module path and a template for ours, in order.
        theirs: their constructor's name for each of our names, where the two differ.
        drop: patterns of their keys that have no place in ours.
        models: shell patterns of their models' names, each with the options of ours that its weights need;
            empty where the keys tell them apart.
        file: where the table lies.
    """

    source: str
    networks: tuple[str, ...]
    modules: tuple[tuple[re.Pattern[str], str], ...]
    theirs: dict[str, str]
    drop: tuple[re.Pattern[str], ...]
    models: dict[str, dict[str, Any]]
    file: str

    def models_of(self, name: str) -> dict[str, dict[str, Any]]:
        """Their models that have the keys of our network `name`: its letters and number are in theirs."""
        return {
            pattern: options
            for pattern, options in self.models.items()
            if any(
                fnmatch.fnmatchcase(theirs, pattern)
                for theirs in (self.their_name(name), name, f"tf_{name}", name.replace("_", "-"))
            )
        }

    def their_name(self, name: str) -> str:
        """The other library's name for our network `name`."""
        return self.theirs.get(name, name)

    def drops(self, key: str) -> bool:
        """Whether their `key` has no place in ours."""
        return any(pattern.fullmatch(key) for pattern in self.drop)

    def our_key(self, key: str) -> str | None:
        """Our key for theirs; None where no pattern matches its module."""
        module, dot, parameter = key.rpartition(".")
        for pattern, template in self.modules:
            match = pattern.fullmatch(module)
            if match is not None:
                return match.expand(template) + dot + parameter
        return None

    def fit(self, name: str) -> tuple[bool, int]:
        """How specifically the table names our network `name`: whether in full, and by how many letters.

        (False, -1) where it does not name it.
        """
        scores = [
            (not re.search(r"[*?\[]", pattern), len(re.sub(r"\*|\?|\[.*?\]", "", pattern)))
            for pattern in self.networks
            if fnmatch.fnmatchcase(name, pattern)
        ]
        return max(scores, default=(False, -1))


@functools.cache
def all_tables() -> tuple[KeyTable, ...]:
    """Every key table.

    Raises:
        WeightsError: a file has an unknown or missing entry, or a pattern that is none.
    """
    return tuple(table for path in sorted(KEYMAPS.glob("*.toml")) for table in read_tables(path))


def read_tables(path: Path) -> list[KeyTable]:
    """The tables of one file.

    Raises:
        WeightsError: as `all_tables`.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return [_make_table(path.name, **entry) for entry in data["table"]]
    except (KeyError, TypeError, re.error, tomllib.TOMLDecodeError) as error:
        raise WeightsError(f"{path.name}: {type(error).__name__}: {error}") from error


def _make_table(
    file: str,
    *,
    source: str,
    networks: list[str],
    modules: dict[str, str],
    theirs: dict[str, str] | None = None,
    drop: Iterable[str] = (),
    models: dict[str, dict[str, Any]] | None = None,
) -> KeyTable:
    return KeyTable(
        source=source,
        networks=tuple(networks),
        modules=tuple((re.compile(pattern), template) for pattern, template in modules.items()),
        theirs=theirs or {},
        drop=tuple(re.compile(pattern) for pattern in drop),
        models=models or {},
        file=file,
    )


def find_table(
    name: str, source: str, tables: Iterable[KeyTable] | None = None, keys: Sequence[str] = ()
) -> KeyTable:
    """The table for our network `name` and the library `source`: the one that names it most specifically.

    Of tables that name it equally (a general builder has one for each network that it can build), it is the
    one that maps most of `keys`.

    Args:
        name: of our network.
        source: of the weights.
        tables: where to look; None for all that ship.
        keys: theirs, where they are known.

    Raises:
        WeightsError: the source is unknown, or has no table for this network; the message says what there is.
    """
    known = all_tables() if tables is None else tuple(tables)
    of_source = [table for table in known if table.source == source]
    if not of_source:
        sources = sorted({table.source for table in known})
        raise WeightsError(f"unknown `source`={source!r}; there are key tables for {_list(sources)}")
    highest = max(table.fit(name) for table in of_source)
    equal = [table for table in of_source if table.fit(name) == highest]
    best = max(equal, key=lambda table: sum(table.our_key(key) is not None for key in keys))
    if best.fit(name) == (False, -1):
        others = sorted({table.source for table in known if table.fit(name) != (False, -1)})
        names = sorted({network for table in of_source for network in table.networks})
        raise WeightsError(
            f"no key table brings weights from {source} onto {name!r}; "
            f"tables for {name!r} exist from: {_list(others)}; "
            f"nearest that {source} has: {nearest(name, names)}; all: {_list(names)}"
        )
    return best


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
