"""What `run.json` says of a training: what was asked for, on what it ran, and what differs later."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from convatlas.config import build, to_toml
from convatlas.runs.run import RECORD, RunError, find_runs, flat, machine, versions
from convatlas.training.distributed import Ranks, launch_name
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.setup import TrainSetup
from convatlas.training.spec import TrainSpec


def make_record(
    setup: TrainSetup,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    upkeep: Mapping[str, Any],
    *,
    named: bool,
    repeatable: bool,
) -> dict[str, Any]:
    """The record of a training that begins.

    Args:
        setup: the training.
        settings: fields of the recipe that were changed.
        options: other flags of the command that repeats it, where they are not the default.
        upkeep: what goes on around it.
        named: whether the data can be loaded by their name.
        repeatable: whether a command can repeat it: nothing came from Python.
    """
    source = setup.source
    return {
        "config": spec_record(setup.spec),
        "seed": setup.spec.seed,
        "cwd": str(Path.cwd()),
        "settings": {name: _plain(value) for name, value in settings.items()},
        "options": dict(options),
        "from_names": repeatable,
        "upkeep": dict(upkeep),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "launch": launch_name(),
        "speed": list(setup.execution.reasons),
        "replaced": replaced_by(setup),
        "versions": versions(),
        "machine": machine(torch.get_num_threads()) | _place(setup.ranks),
        "data": {
            "fingerprint": source.fingerprint,
            "train": len(source.train),
            "test": len(source.test),
            "validation": 0 if setup.validation is None else len(setup.validation),
            "named": named,
            "skipped": [f"{skipped.path}: {skipped.reason}" for skipped in source.skipped],
        },
    }


def continued(
    record: Mapping[str, Any], setup: TrainSetup, settings: Mapping[str, Any], upkeep: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a training that goes on: what it is now, begun when and on what it was.

    Args:
        record: as it was.
        setup: the training as it is now.
        settings: fields of the recipe that are changed now.
        upkeep: what goes on around it now.
    """
    now = make_record(
        setup,
        {**record["settings"], **settings},
        record["options"],
        upkeep,
        named=record["data"]["named"],
        repeatable=record["from_names"],
    )
    names = ("started", "launch", "replaced", "versions", "machine")
    kept = {name: record[name] for name in names if name in record}
    return {**record, **now, **kept}


def replaced_by(setup: TrainSetup) -> list[str]:
    """Names of our own convolutions that a training takes."""
    return [ours.name for ours in setup.execution.replaced]


def spec_record(spec: TrainSpec) -> dict[str, Any]:
    """What was asked for, as JSON holds it."""
    return {
        "network": spec.network,
        "model": dict(spec.model),
        "data": spec.data,
        "pretrained": spec.pretrained,
        "input_size": spec.input_size,
        "fit": spec.fit,
        "exact": spec.exact,
        "compile": spec.compile,
        "on_nan": spec.on_nan,
        "on_bad_image": spec.on_bad_image,
        "recipe": tomllib.loads(to_toml(spec.recipe)),
    }


def spec_flags(
    spec: TrainSpec, recipe: str | Path | Recipe | None, data_dir: str | Path | None, tensorboard: bool
) -> dict[str, Any]:
    """The flags of `convatlas train`, beside `--set`, that were not left at their default."""
    given = {
        "recipe": None if recipe is None or isinstance(recipe, Recipe) else str(recipe),
        "data_dir": None if data_dir is None else str(data_dir),
        "input": spec.input_size,
        "fit": spec.fit,
        "pretrained": spec.pretrained is True,
        "tag": spec.pretrained if isinstance(spec.pretrained, str) else None,
        "exact": spec.exact,
        "compile": spec.compile,
        "on_nan": None if spec.on_nan == "stop" else spec.on_nan,
        "on_bad_image": None if spec.on_bad_image == "refuse" else spec.on_bad_image,
        "tensorboard": tensorboard,
    }
    return {name: value for name, value in given.items() if value is not None and value is not False}


def asked(record: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the result, of a record: a checkpoint is good for this alone. Data may move."""
    return {
        "config": {name: value for name, value in record["config"].items() if name != "data"},
        "seed": record["seed"],
        "data": {"fingerprint": record["data"]["fingerprint"]},
    }


def check_agreement(record: Mapping[str, Any], ranks: Ranks) -> None:
    """Refuses processes that were asked for different things, or see different data.

    Raises:
        RanksError: in every process; names those that differ.
    """
    ranks.check_same("configuration", json.dumps(asked(record) | {"data": None}, sort_keys=True))
    ranks.check_same("data", record["data"]["fingerprint"])


def read_spec(folder: Path, record: Mapping[str, Any]) -> TrainSpec:
    """What a run was asked for.

    Raises:
        RunError: the record is damaged.
        ValueError: a value in it does not fit.
    """
    needed = ("settings", "options", "from_names", "started", "launch", "versions", "machine", "data")
    try:
        _ = [record[name] for name in needed], record["data"]["named"], record["machine"]["threads"]
        config = dict(record["config"])
        recipe = build(Recipe, config.pop("recipe"))
        return TrainSpec(recipe=recipe, seed=record["seed"], **config)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / RECORD}: is damaged ({type(error).__name__}: {error})") from None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested mappings, a line each: "recipe.lr: 0.1 -> 0.05"."""
    old, new = dict(flat(before)), dict(flat(now))
    names = [name for name in (*old, *(name for name in new if name not in old))]
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    """On what the bits of the result depend, beside what was asked for."""
    place = record["machine"]
    names = ("processor", "threads", "device", "processes")
    ours = ", ".join(record["replaced"]) or "none"
    found = {"torch": record["versions"]["torch"], "our own convolutions": ours}
    return found | {name: place.get(name) for name in names}


def conditions_now(setup: TrainSetup) -> dict[str, Any]:
    """The same of this process."""
    place = machine(torch.get_num_threads()) | _place(setup.ranks)
    return conditions({"versions": versions(), "replaced": replaced_by(setup), "machine": place})


def find_launched(out: Path, name: str | None, spec: TrainSpec) -> Path | None:
    """The run that this launch of torchrun began before it restarted us after a failure; or None.

    Args:
        out: folder of runs.
        name: of the run; None for any.
        spec: what it was asked for.
    """
    launch = launch_name()
    if launch is None or not out.is_dir():
        return None
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    for run in reversed(find_runs(out)[0]):
        record = run.record
        same = record.get("launch") == launch and record["config"] == spec_record(spec)
        same = same and record["seed"] == spec.seed and name in (None, run.folder.name)
        if same and (again or "result" not in record):
            return run.folder
    return None


def _place(ranks: Ranks) -> dict[str, Any]:
    return {"device": ranks.device.type, "processes": ranks.world_size}


def _plain(value: Any) -> Any:
    """A setting as JSON holds it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tomllib.loads(to_toml(value))
    return str(value) if isinstance(value, Path) else value
