"""What stands around the loop: the run folder, its lock, the watcher, the end of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convatlas.catalog.cards import all_cards
from convatlas.config import kind_of
from convatlas.devices import torch_threads
from convatlas.metrics.classification import Evaluation
from convatlas.models.network import check_count
from convatlas.runs import checkpoint as files
from convatlas.runs.checkpoint import CHECKPOINTS
from convatlas.runs.lock import locked
from convatlas.runs.run import (
    METRICS,
    WEIGHTS,
    Run,
    RunError,
    make_run_folder,
    sealed,
    sha256_of,
    write_record,
)
from convatlas.training.cpu.malloc import kept_memory
from convatlas.training.distributed import Ranks
from convatlas.training.held_back import held_back
from convatlas.training.logging.events import Callback, Facts, Silent, Watcher
from convatlas.training.logging.metrics_logger import MetricsLogger, test_figures
from convatlas.training.logging.progress import CompositeCallback
from convatlas.training.logging.report import LiveCurves, write_report
from convatlas.training.logging.tensorboard import FOLDER as TENSORBOARD
from convatlas.training.logging.tensorboard import TensorBoard
from convatlas.training.nonfinite import TrainingError
from convatlas.training.optim import SLOTS
from convatlas.training.record import asked
from convatlas.training.setup import TrainSetup
from convatlas.training.signals import stop_flag
from convatlas.training.trainer import Training
from convatlas.weights.files import read_weights, write_safetensors
from convatlas.weights.load import load_own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upkeep:
    """What goes on around a training, without any effect on its result.

    Attributes:
        save_every: steps between checkpoints; None for each epoch, and every ten minutes in long ones.
        keep: the newest checkpoints that are kept, beside the best.
        callbacks: receive each line of `metrics.jsonl`.
        tensorboard: whether TensorBoard's events are written.
    """

    save_every: int | None = None
    keep: int = 3
    callbacks: tuple[Callback, ...] = ()
    tensorboard: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of it, for when it is resumed."""
        return {"save_every": self.save_every, "keep": self.keep}

    def __post_init__(self) -> None:
        """Checks the counts, and whether TensorBoard is there.

        Raises:
            ValueError: if a value is not as described above.
        """
        check_count("keep", self.keep, least=1)
        if self.save_every is not None:
            check_count("save_every", self.save_every, least=1)
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "`tensorboard`: TensorBoard is not installed: pip install tensorboard, "
                "or '.[track]' in a checkout"
            )


@contextlib.contextmanager
def attended(watcher: Watcher | None, ranks: Ranks) -> Generator[Watcher]:
    """Shows what the first process does, and draws its curves; the others are silent."""
    with CompositeCallback(watcher or Silent(), LiveCurves()) if ranks.is_first else Silent() as shown:
        yield shown


@contextlib.contextmanager
def arithmetic(ranks: Ranks, *, exact: bool, threads: int | None = None) -> Generator[None]:
    """Lends the process to a training: its random numbers, threads and GPU settings are as before afterwards.

    Args:
        ranks: the processes.
        exact: choose algorithms that give the same bits each time, on a GPU; and leave memory as it is.
        threads: of torch on the CPU, on whose number the bits of a result depend; None for what there are.
    """
    gpu = ranks.device.type == "cuda"
    lent = torch_threads(threads or torch.get_num_threads())
    flags = torch.backends.cudnn.flags(benchmark=not exact, deterministic=exact, allow_tf32=not exact)
    memory = contextlib.nullcontext() if exact else kept_memory()
    with torch.random.fork_rng([ranks.device.index] if gpu else []), flags, memory, lent:
        yield


@contextlib.contextmanager
def hold(folder: Path, ranks: Ranks) -> Generator[None]:
    """Keeps other launches out of a run folder.

    Raises:
        LockedError: one is at work there.
    """
    with locked(folder) if ranks.is_first else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def removed_if_refused(folder: Path, ranks: Ranks) -> Generator[None]:
    """Removes the folder of a new run where training is refused before it has left anything there."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kept = isinstance(error, TrainingError) or files.steps_in(folder / CHECKPOINTS)
        if ranks.is_first and not kept and not (folder / METRICS).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def check_room(setup: TrainSetup, folder: Path, keep: int) -> None:
    """Refuses to begin what the disk cannot hold.

    Args:
        setup: the training.
        folder: of the run, or where it will be made.
        keep: checkpoints that will be kept, beside the best and one in the making.

    Raises:
        SpaceError: if there is too little; says how much is needed.
    """
    recipe = setup.spec.recipe
    averages = (recipe.ema_decay is not None, recipe.validation > 0.0, recipe.soup > 0, recipe.l2_sp > 0.0)
    copies = 1 + len(SLOTS[recipe.optimizer]) + sum(averages)
    weights = files.bytes_needed({"weights": setup.net.state_dict()})
    count = max(1, keep + 2 - len(files.steps_in(folder / CHECKPOINTS)))
    what = f"{count} checkpoints and the weights of a run"
    files.check_room(folder, weights * (copies * count + 1), what)


def make_folder(out: Path, name: str | None, setup: TrainSetup) -> Path:
    """Makes the folder of a new run, in the first process, and tells all its name.

    Args:
        out: folder of runs; made where it is missing.
        name: of the run; None for network, data and the next free number.
        setup: the training.

    Raises:
        RunError: the folder cannot be made, or has a run already.
    """
    if not setup.ranks.is_first:
        return setup.ranks.broadcast_object(None)
    if name is None:
        data = Path(setup.spec.data.partition(":")[2] or setup.spec.data).name
        return setup.ranks.broadcast_object(make_run_folder(out, f"{setup.spec.network}-{data}"))
    folder = out / name
    if folder.parent != out or name in ("", ".", ".."):
        raise RunError(f"`name`={name!r}; expected the name of a folder in `out`={str(out)!r}, not a path")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"{folder}: is there already; `convatlas resume {folder}` goes on with it") from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror})") from None
    return setup.ranks.broadcast_object(folder)


def work(
    setup: TrainSetup,
    folder: Path,
    record: dict[str, Any],
    upkeep: Upkeep,
    watcher: Watcher,
    found: files.Checkpoint | None,
    *,
    longer: bool = False,
) -> Run:
    """Trains to the end, and leaves weights and report.

    Args:
        setup: the training.
        folder: of the run, which this process holds.
        record: what `run.json` says; gets its result.
        upkeep: what goes on around it.
        watcher: shows it.
        found: the checkpoint to go on from, in the first process; None to begin.
        longer: go on although the checkpoint is that of the end, where there are more steps now.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        TrainingError: the loss is NaN or infinite, and nothing helps.
        SpaceError: there is too little room on the disk.
    """
    first = setup.ranks.is_first
    with stop_flag() as stop:
        training = Training(
            setup, folder, {"asked": asked(record)}, stop, save_every=upkeep.save_every, keep=upkeep.keep
        )
        try:
            if setup.ranks.broadcast_object(found is not None):
                training.restore(found)
                if longer:
                    training.state.over = training.state.step >= setup.batch_order.num_steps
            if first:
                write_record(folder, record)
                training.metrics_logger = _metrics_logger(training, upkeep, watcher)
            training.start()
            evaluation = training.run()
            result = _finish(training, evaluation, folder, record) if first else None
            training.learner.settle()
        except torch.OutOfMemoryError as error:
            parts = 2 * setup.spec.recipe.accumulate
            raise TrainingError(
                f"the memory of {setup.ranks.device} is full; `--set accumulate={parts}` computes each batch "
                f"in {parts} parts"
            ) from error
        except OSError as error:
            if error.errno not in files.FULL:
                raise
            needed = files.bytes_needed(training.learner.groups())
            raise files.SpaceError(files.no_room(training.checkpoints, needed, "run")) from error
    return Run(folder, record | {"result": setup.ranks.broadcast_object(result)})


def load_final(run: Run, net: nn.Module, ranks: Ranks) -> None:
    """Gives a module the weights of a finished run, in every process."""
    if ranks.is_first:
        load_own(net, read_weights(run.weights))
    ranks.broadcast_(net.state_dict().values())


def _metrics_logger(training: Training, upkeep: Upkeep, watcher: Watcher) -> MetricsLogger:
    setup, step = training.setup, training.state.step
    recipe = setup.spec.recipe
    extra = (TensorBoard(training.folder / TENSORBOARD),) if upkeep.tensorboard else ()
    watcher.start(
        Facts(
            network=setup.spec.network,
            data=setup.spec.data,
            folder=training.folder,
            num_images=len(setup.source.train),
            num_test_images=len(setup.source.test),
            num_epochs=setup.batch_order.num_epochs,
            num_steps=setup.batch_order.num_steps,
            first_step=step,
            batch_size=setup.spec.recipe.batch_size,
            world_size=setup.ranks.world_size,
            device=str(setup.ranks.device),
            rate=f"learning rate {recipe.lr:g}, {kind_of(type(recipe.schedule))} schedule",
            execution=setup.execution.reasons,
        )
    )
    return MetricsLogger(
        training.folder, setup.batch_order, watcher, upkeep.callbacks + extra, setup.ranks.device, step
    )


def _finish(
    training: Training, evaluation: Evaluation, folder: Path, record: dict[str, Any]
) -> dict[str, Any]:
    """Writes weights, the result into the record, and then the report, which may fail."""
    training.count_time()
    state = training.state
    result = test_figures(evaluation) | {
        "epochs": state.step // training.batch_order.steps_per_epoch,
        "steps": state.step,
        "seconds": round(state.seconds, 2),
        "best_epoch": state.best_epoch,
    }
    if training.setup.validation is None:
        result["best_test_accuracy"] = state.best_accuracy
    else:
        result |= {"best_validation_accuracy": state.best_accuracy, "kept_epoch": state.kept_epoch}
    _write_weights(training, folder, record, result["test_accuracy"])
    if training.setup.validation is not None:
        held = held_back(training.setup, training.learner.net, training.setup.validation)
        held.write(folder)
        result["temperature"] = round(held.temperature, 4)
    result = sealed(result | {"weights_sha256": sha256_of(folder / WEIGHTS)})
    run = Run(folder, record | {"result": result})
    write_record(folder, run.record)
    try:
        write_report(run, evaluation, training.setup.source.test, training.setup.source.class_names)
    except Exception as error:  # Libraries that draw and decode raise anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        training.note(
            f"the run is finished, but its report could not be written ({reason}); "
            f"`convatlas resume {folder}` tries again"
        )
    return result


def _write_weights(training: Training, folder: Path, record: dict[str, Any], accuracy: float) -> None:
    spec, source = training.setup.spec, training.setup.source
    card = all_cards().get(spec.network)
    metadata = {
        **_model_header(training.setup),
        "data": spec.data,
        "data_fingerprint": source.fingerprint,
        "test_accuracy": str(accuracy),
        "convatlas": record["versions"]["convatlas"],
    }
    if card is not None:
        metadata["paper"] = f"{card.paper.title} ({card.paper.year}), {card.paper.identifier}"
    with training.learner.averaged():
        write_safetensors(folder / WEIGHTS, training.learner.net.state_dict(), metadata)


def _model_header(setup: TrainSetup) -> dict[str, str]:
    """Which network the weights belong to; of one from Python, its class is all that can be said."""
    if setup.model is not None:
        return setup.model.header()
    return {
        "network": setup.spec.network,
        "num_classes": str(setup.num_classes),
        "class_names": json.dumps(setup.source.class_names),
        "transform": setup.transform.record(),
    }
