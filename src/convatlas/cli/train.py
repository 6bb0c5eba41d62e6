"""`convatlas train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from convatlas.cli.model_option import ModelOption, read_model
from convatlas.models.model_file import without_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from convatlas.runs.run import Run


def train_command(
    network: str | None = None,
    /,
    *,
    model: ModelOption = (),
    data: str = "digits",
    data_dir: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    epochs: int | None = None,
    lr: float | Literal["auto"] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    input_size: Annotated[int | None, Parameter(name="--input")] = None,
    fit: Literal["crop", "pad", "squash", "tiles"] | None = None,
    pretrained: Annotated[bool, Parameter(negative="")] = False,
    tag: str | None = None,
    out: Path = Path("runs"),
    name: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    exact: Annotated[bool, Parameter(negative="")] = False,
    compile: Annotated[bool, Parameter(negative="")] = False,
    on_nan: Literal["stop", "skip", "rollback"] = "stop",
    on_bad_image: Literal["refuse", "skip"] = "refuse",
    save_every: int | None = None,
    keep: int = 3,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a network and leave a run folder behind, which `convatlas resume` goes on with at any time.

    Under torchrun, all processes train together: torchrun --nproc-per-node 2 -m convatlas train ...

    Args:
        network: Name of the network, for example lenet5, or a model file; not needed where --model names one.
        model: Change a field of the network's config, for example --model shortcut=B; or a TOML file that
            names a network with options, as `convatlas scale -o` writes it. The data decide classes and
            channels.
        data: digits, fashion-mnist, mnist, cifar10, cifar100, folder:PATH, imagenet:PATH or shards:PATH.
        data_dir: Where small data sets lie, or are downloaded to.
        recipe: Recipe; where not given, finetune with published weights, else the network's paper's.
            `convatlas recipe list` shows all.
        config: TOML file with a recipe, as `convatlas recipe show` prints it.
        set_: Change a field of the recipe, for example --set epochs=10 --set augment.flip=0.5.
        epochs: Passes over the training images, as --set epochs.
        lr: Learning rate where the schedule's level is 1, as --set lr; auto finds one by a range test, whose
            curve is kept in the run folder.
        batch_size: Images of one step, as --set batch_size.
        seed: Seed of the weights, the order, augmentation and dropout.
        input_size: Px a side that images are brought to; as they are in memory, the network's own on disk.
        fit: How images that are not square become so: crop (the middle), pad (the whole, filled up with the
            mean colour), squash (the whole, scaled to a square) or tiles (squares that cover it, averaged);
            crop where not given, and squash for images of one size in memory.
        pretrained: Begin with published weights.
        tag: Begin with the published weights of this tag.
        out: Folder in which the run folder is made.
        name: Name of the run folder; network, data and a number where not given.
        workers: Processes that decode images; as many as fit the machine where not given.
        device: cpu or cuda; a GPU where there is one.
        exact: Compute in float32 and rearrange nothing.
        compile: Use torch's compiler.
        on_nan: When the loss is NaN or infinite: stop, skip the step, or go back with half the learning rate.
        on_bad_image: Refuse images that cannot be read, or skip them.
        save_every: Steps between checkpoints; each epoch, and every ten minutes, where not given.
        keep: The newest checkpoints that are kept, beside the best.
        tensorboard: Write TensorBoard's events into the run folder, too.
    """
    from convatlas.training.logging.progress import terminal_watcher
    from convatlas.training.recipes.find import parse_settings
    from convatlas.training.train import train

    if recipe is not None and config is not None:
        raise ValueError(f"`--recipe {recipe}` and `--config {config}` both name a recipe; give one")
    if config is not None and config.suffix != ".toml":
        raise ValueError(f"`--config {config}`; expected a file that ends in .toml")
    settings = parse_settings(set_)
    for field, value in (("epochs", epochs), ("lr", lr), ("batch_size", batch_size)):
        if value is not None and field in settings:
            raise ValueError(
                f"`--{field.replace('_', '-')} {value}` and `--set {field}` both set it; give one"
            )
        settings |= {} if value is None else {field: value}
    chosen = read_model(network, model)
    return finish(
        lambda: train(
            chosen.network,
            model=without_data(chosen.overrides),
            data=data,
            data_dir=data_dir,
            recipe=recipe if config is None else config,
            seed=seed,
            input_size=chosen.input_size if input_size is None else input_size,
            fit=fit,
            pretrained=tag or pretrained,
            out=out,
            name=name,
            workers=workers,
            device=device,
            exact=exact,
            compile=compile,
            on_nan=on_nan,
            on_bad_image=on_bad_image,
            save_every=save_every,
            keep=keep,
            tensorboard=tensorboard,
            watcher=terminal_watcher(),
            **settings,
        )
    )


def finish(training: Callable[[], Run]) -> int:
    """Trains, and says how it ended; of several processes, the first one says it.

    Returns:
        The exit code: 75 ("try again") after a signal, which leaves a checkpoint to go on from.
    """
    from convatlas.training.signals import TRY_AGAIN, StoppedError

    is_first = os.environ.get("RANK", "0") == "0"
    try:
        run = training()
    except StoppedError as stopped:
        if is_first:
            print(f"convatlas: {stopped}", file=sys.stderr)
        return TRY_AGAIN
    if is_first:
        count = run.record["data"]["test"]
        print(f"\ntest accuracy {run.test_accuracy:.2%} on {count:,} images")
        print(f"everything is in {run.folder}: open report.md or curves.png there, or try it on an image:")
        print(f"  convatlas predict {run.folder} IMAGE")
    return 0
