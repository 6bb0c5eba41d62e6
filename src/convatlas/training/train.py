"""Training a network, and going on with a training that was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from convatlas.catalog.cards import is_model
from convatlas.config import change
from convatlas.data.fit import Fit
from convatlas.data.sets import OnBadImage, Source
from convatlas.metrics.report_sections import PAGE
from convatlas.runs import checkpoint as files
from convatlas.runs.checkpoint import CHECKPOINTS
from convatlas.runs.run import Run, RunError, locate_data, locate_data_dir, open_run
from convatlas.training.distributed import Ranks, open_ranks
from convatlas.training.logging.events import Callback, Watcher
from convatlas.training.logging.progress import watcher_for
from convatlas.training.lr_range import with_found_lr, write_lr_curve
from convatlas.training.recipes.recipe import Recipe, RecipeFields
from convatlas.training.recipes.suit import FINETUNE, suited
from convatlas.training.record import (
    asked,
    check_agreement,
    conditions,
    conditions_now,
    continued,
    differences,
    find_launched,
    make_record,
    read_spec,
    spec_flags,
)
from convatlas.training.session import (
    Upkeep,
    arithmetic,
    attended,
    check_room,
    hold,
    load_final,
    make_folder,
    removed_if_refused,
    work,
)
from convatlas.training.setup import TrainSetup, make_setup, make_source
from convatlas.training.spec import OnNan, make_spec


@dataclasses.dataclass(frozen=True)
class Given:
    """What only Python can give, and what makes no difference to the result.

    Attributes:
        network: a module that is not in the registry.
        data: as `train` takes them; None for what the run's record names.
        test_data: as `train` takes them.
        workers: processes that decode images; None for what fits the machine.
    """

    network: nn.Module | None
    data: str | Source | Any
    test_data: Any
    workers: int | None


def train(
    network: str | nn.Module,
    *,
    data: str | Source | Any = "digits",
    test_data: Any = None,
    recipe: str | Path | Recipe | None = None,
    seed: int = 0,
    out: str | Path = "runs",
    name: str | None = None,
    data_dir: str | Path | None = None,
    model: Mapping[str, Any] | None = None,
    pretrained: bool | str = False,
    input_size: int | None = None,
    fit: Fit | None = None,
    workers: int | None = None,
    device: str | None = None,
    exact: bool = False,
    compile: bool = False,
    on_nan: OnNan = "stop",
    on_bad_image: OnBadImage = "refuse",
    save_every: int | None = None,
    keep: int = 3,
    tensorboard: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    watcher: Watcher | None = None,
    **settings: Unpack[RecipeFields],
) -> Run:
    """Trains a network and leaves a run folder behind, from which it can be resumed at any time.

    On a CPU the result depends on the arguments, the machine and the number of threads alone: the same give
    bit-identical weights, however often training was stopped and whatever the number of workers. torch's
    global random numbers are left as they were. Under `torchrun`, all processes train together.

    Args:
        network: a name or alias in the registry, or any module that gives (B, K) logits for images, which
            is trained in place.
        data: a data set by name, as `load_source` knows it; a `Source`; or a map-style dataset that gives
            (image, label).
        test_data: a map-style dataset to measure on; a fifth of `data` where that is a dataset and this is
            not given.
        recipe: a name, a TOML file or a `Recipe`; None for "finetune" with `pretrained`, for "modern" with a
            module, else for the network's paper's. Epochs and batch size of "finetune" suit the number of
            training images, where they are not set.
        seed: of the weights, the order, augmentation and dropout.
        out: folder in which the run folder is made.
        name: of the run folder; None for network, data and the next free number.
        data_dir: where small data sets lie or are downloaded to.
        model: fields of the network's config to change, for example `{"shortcut": "B"}`.
        pretrained: True for published weights to begin with, or their tag.
        input_size: px a side that images are brought to; None for the size that they have in memory, or
            the network's own for images on disk.
        fit: how images that are not square become so: "crop" cuts out the middle, "pad" scales the whole and
            fills up with the mean colour, "squash" scales it to a square, "tiles" learns from squares of it
            and averages what is answered to each; None for "squash" where all have one size, else "crop".
            Files of weights keep it, so that predictions and exported files do the same.
        workers: processes that decode images; None for what fits the machine.
        device: "cpu" or "cuda"; None for a GPU if there is one.
        exact: compute in float32 and rearrange nothing.
        compile: use torch's compiler.
        on_nan: when the loss is NaN or infinite, "stop", "skip" the step, or "rollback" to the last
            checkpoint and go on with half the learning rate.
        on_bad_image: "refuse" or "skip" images that cannot be read.
        save_every: steps between checkpoints; None for each epoch, and every ten minutes in long ones.
        keep: the newest checkpoints that are kept, beside the best.
        tensorboard: write TensorBoard's events into the run folder, too.
        callbacks: receive each line of `metrics.jsonl` as a mapping.
        progress: show how it goes; None to do so in a terminal and in a notebook.
        watcher: shows how it goes, in place of `progress`.
        settings: fields of the recipe to change, for example `epochs=10`. `lr="auto"` finds the learning rate
            by a range test, whose curve the run folder keeps.

    Returns:
        The finished run, with `test_accuracy` as a fraction and `folder`.

    Raises:
        UnknownNameError: no such network, data set, recipe or field; names the nearest.
        StoppedError: SIGTERM, SIGINT or SIGUSR1 came; the training is saved.
        ValueError: something does not fit, or the loss is no longer a number.
    """
    upkeep = Upkeep(save_every=save_every, keep=keep, callbacks=tuple(callbacks), tensorboard=tensorboard)
    fixed = {name: value for name, value in settings.items() if (name, value) != ("lr", "auto")}
    spec = make_spec(
        network,
        data,
        recipe,
        fixed,
        seed=seed,
        model=dict(model or {}),
        pretrained=pretrained,
        input_size=input_size,
        fit=fit,
        exact=exact,
        compile=compile,
        on_nan=on_nan,
        on_bad_image=on_bad_image,
    )
    module = network if isinstance(network, nn.Module) else None
    options = spec_flags(spec, recipe, data_dir, tensorboard)
    with open_ranks(device) as ranks, attended(watcher or watcher_for(progress), ranks) as shown:
        launched = ranks.broadcast_object(find_launched(Path(out), name, spec) if ranks.is_first else None)
        if launched is not None:  # torchrun has started this process anew after a failure.
            given = Given(module, data, test_data, workers)
            return _go_on(open_run(launched), given, ranks, upkeep, shown, False, {})
        with arithmetic(ranks, exact=exact):
            source = make_source(data, test_data, spec, data_dir, shown.note)
            if recipe == FINETUNE or (recipe is None and spec.pretrained):
                count = round(len(source.train) * (1.0 - spec.recipe.validation))
                spec = dataclasses.replace(spec, recipe=suited(spec.recipe, count, settings))
            setup = make_setup(spec, module, source, ranks, workers)
            curve = None
            if len(fixed) < len(settings):
                setup, curve = with_found_lr(setup, shown.note)
            named = isinstance(data, str)
            plain = module is None and named and not isinstance(recipe, Recipe) and not model
            record = make_record(setup, settings, options, upkeep.record, named=named, repeatable=plain)
            check_agreement(record, ranks)
            check_room(setup, Path(out), keep)
            folder = make_folder(Path(out), name, setup)
            with hold(folder, ranks), removed_if_refused(folder, ranks):
                if curve is not None and ranks.is_first:
                    write_lr_curve(folder, curve)
                return work(setup, folder, record, upkeep, shown, None)


def resume(
    folder: str | Path,
    *,
    network: nn.Module | None = None,
    data: str | Source | Any = None,
    test_data: Any = None,
    workers: int | None = None,
    device: str | None = None,
    allow_change: bool = False,
    save_every: int | None = None,
    keep: int | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    watcher: Watcher | None = None,
    **settings: Unpack[RecipeFields],
) -> Run:
    """Goes on with a training that was stopped or killed, to the same weights that it would have reached.

    It starts from the newest checkpoint that is whole, or anew where there is none. A finished run is
    returned as it is, unless its weights are damaged or its report is missing, which are then written anew
    from the last checkpoint; with `allow_change` and more `epochs` in `settings`, it is trained longer.

    Args:
        folder: of the run.
        network: the module, where the training had one that is not in the registry.
        data: the data, where they came from Python; a name, where the data have moved.
        test_data: as `train` had it.
        workers: as in `train`; the number makes no difference to the result.
        device: as in `train`.
        allow_change: go on although the recipe, the network or the data have changed.
        save_every: steps between checkpoints; None for what the run had.
        keep: the newest checkpoints that are kept; None for as many as before.
        callbacks: as in `train`.
        progress: as in `train`.
        watcher: as in `train`.
        settings: fields of the recipe to change, with `allow_change`.

    Returns:
        The finished run.

    Raises:
        RunError: the folder is not that of a run, or what is asked for has changed.
        LockedError: another process works on it.
        StoppedError: SIGTERM, SIGINT or SIGUSR1 came; the training is saved.
        ValueError: something does not fit, or the loss is no longer a number.
    """
    given = Given(network, data, test_data, workers)
    with open_ranks(device) as ranks, attended(watcher or watcher_for(progress), ranks) as shown:
        run: Run = ranks.broadcast_object(open_run(Path(folder)) if ranks.is_first else None)
        before = run.record.get("upkeep", {})
        upkeep = Upkeep(
            save_every=save_every or before.get("save_every"),
            keep=keep or before.get("keep", 3),
            callbacks=tuple(callbacks),
            tensorboard=bool(run.record.get("options", {}).get("tensorboard")),
        )
        return _go_on(run, given, ranks, upkeep, shown, allow_change, settings)


def _go_on(
    run: Run,
    given: Given,
    ranks: Ranks,
    upkeep: Upkeep,
    watcher: Watcher,
    allow_change: bool,
    settings: Mapping[str, Any],
) -> Run:
    folder, record = run.folder, run.record
    if run.state == "finished" and settings and not allow_change:
        raise RunError(
            f"{folder}: is finished, and {', '.join(settings)} would change it; `--allow-change` "
            "(`allow_change=True`) goes on from its end, so more `epochs` train it longer"
        )
    if run.state == "finished" and not settings and (_is_whole(run) or not _can_repeat(record, given)):
        watcher.note(f"{folder}: is finished, with a test accuracy of {run.test_accuracy:.2%}")
        if given.network is not None:
            load_final(run, given.network.to(ranks.device), ranks)
        return run
    with hold(folder, ranks):
        spec, named = read_spec(folder, record), record["data"]["named"]
        if (given.network is None and not is_model(spec.network)) or (given.data is None and not named):
            raise RunError(
                f"{folder}: was started from Python with {spec.network} on {spec.data}; only "
                "`convatlas.resume(folder, network=..., data=...)` there can go on with it"
            )
        data = locate_data(record) if given.data is None else given.data
        spec = dataclasses.replace(
            spec, recipe=change(spec.recipe, settings), data=data if isinstance(data, str) else spec.data
        )
        with arithmetic(ranks, exact=spec.exact, threads=record["machine"]["threads"]):
            source = make_source(data, given.test_data, spec, locate_data_dir(record), watcher.note)
            setup = make_setup(spec, given.network, source, ranks, given.workers, record.get("replaced"))
            check_room(setup, folder, upkeep.keep)
            found = files.newest_checkpoint(folder / CHECKPOINTS, watcher.note) if ranks.is_first else None
            now = continued(record, setup, settings, upkeep.record)
            check_agreement(now, ranks)
            if ranks.is_first:
                _check_unchanged(folder, found.state["asked"] if found else asked(record), now, allow_change)
                _tell_conditions(now, setup, watcher)
            now.pop("result", None)
            return work(setup, folder, now, upkeep, watcher, found, longer=run.state == "finished")


def _is_whole(run: Run) -> bool:
    """Whether a finished run has its report, and the weights that training wrote."""
    try:
        return run.weights.is_file() and (run.folder / PAGE).is_file()
    except RunError:
        return False


def _can_repeat(record: Mapping[str, Any], given: Given) -> bool:
    """Whether network and data are at hand, without which nothing can be written anew."""
    named = record.get("data", {}).get("named", False)
    return (given.network is not None or is_model(record["config"]["network"])) and bool(
        named or given.data is not None
    )


def _check_unchanged(
    folder: Path, before: Mapping[str, Any], record: Mapping[str, Any], allow_change: bool
) -> None:
    changes = differences(before, asked(record))
    if changes and not allow_change:
        raise RunError(
            f"{folder}: what is asked for is not what its checkpoint was trained with: {'; '.join(changes)}; "
            "`--allow-change` (`allow_change=True`) goes on all the same"
        )


def _tell_conditions(record: dict[str, Any], setup: TrainSetup, watcher: Watcher) -> None:
    """Says, and keeps in the record, why the result may differ in its last bits from an uninterrupted one."""
    changes = differences(conditions(record), conditions_now(setup))
    if changes:
        text = "; ".join(changes)
        record["conditions_changed"] = [*record.get("conditions_changed", []), text]
        watcher.note(f"the result may differ in its last bits from that of one go: {text}")
