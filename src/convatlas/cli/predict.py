"""`convatlas predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def predict_command(
    run: Path,
    /,
    *pictures: Path,
    top: int = 3,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Say what is on pictures.

    A dark digit on white paper and a white digit on black both work: the paper is what the rim of the
    picture shows, and what differs from it is ink.

    Args:
        run: Run folder that training left behind.
        pictures: Picture files.
        top: How many classes to show for each picture.
        as_json: Print one JSON object a line, for machines.
    """
    from convatlas.inference.load import load
    from convatlas.inference.predict import Answer, predict

    if not pictures:
        raise ValueError("name at least one picture after the run folder")
    failed = False
    for answer in predict(load(run), pictures, top=top):
        failed |= not isinstance(answer, Answer)
        if as_json:
            print(json.dumps(answer.record()))
        elif isinstance(answer, Answer):
            shown = "  ".join(f"{name} {share:.1%}" for name, share in answer.top)
            print(f"{answer.picture}: {shown}")
        else:
            print(f"convatlas: {answer.reason}", file=sys.stderr)
    return 2 if failed else 0
