"""`convatlas train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train_command(
    network: str,
    /,
    *,
    data: str = "digits",
    seed: int = 0,
    out: Path = Path("runs"),
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
) -> None:
    """Train a network and leave a run folder behind.

    Args:
        network: Name of the network, for example lenet5.
        data: Data set.
        seed: Seed of the weights, the order and the augmentation.
        out: Folder in which the run folder is made.
        set_: Change a field of the recipe, for example --set epochs=10.
    """
    from convatlas.training.loop import train
    from convatlas.training.progress import terminal_watcher
    from convatlas.training.recipes import parse_settings

    settings = parse_settings(set_)
    run = train(network, data=data, seed=seed, out=out, watcher=terminal_watcher, **settings)
    result, counts = run.record["result"], run.record["data"]
    print(f"\ntest accuracy {result['test_accuracy']:.2%} on {counts['test']:,} images")
    print(f"everything is in {run.folder}: open report.md or curves.png there, or try it on a picture:")
    print(f"  convatlas predict {run.folder} PICTURE")
