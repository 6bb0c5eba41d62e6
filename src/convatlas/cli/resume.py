"""`convatlas resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def resume_command(
    run: Path,
    /,
    *,
    data: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    allow_change: Annotated[bool, Parameter(negative="")] = False,
    workers: int | None = None,
    device: str | None = None,
    save_every: int | None = None,
    keep: int | None = None,
) -> int:
    """Go on with a training that was stopped or killed, to the weights that it would have reached.

    Args:
        run: Folder of the run.
        data: Where the data are now, if they have moved.
        set_: Change a field of the recipe; only with --allow-change.
        allow_change: Go on although the recipe or the data have changed.
        workers: Processes that decode images; the result is the same for any number.
        device: cpu or cuda; a GPU where there is one.
        save_every: Steps between checkpoints; as before where not given.
        keep: The newest checkpoints that are kept, beside the best; as many as before where not given.
    """
    from convatlas.cli.train import finish
    from convatlas.training.logging.progress import terminal_watcher
    from convatlas.training.recipes.find import parse_settings
    from convatlas.training.train import resume

    settings = parse_settings(set_)
    return finish(
        lambda: resume(
            run,
            data=data,
            allow_change=allow_change,
            workers=workers,
            device=device,
            save_every=save_every,
            keep=keep,
            watcher=terminal_watcher(),
            **settings,
        )
    )
