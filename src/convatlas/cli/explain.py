"""`convatlas explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convatlas.escape import plain


def explain_command(
    network: str,
    image: str,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("cam.png"),
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    stage: int | None = None,
    device: str | None = None,
) -> None:
    """Draw which places of an image speak for a class, by Grad-CAM.

    Args:
        network: Run folder, network with published weights, such as efficientnet_lite0, or file of weights.
        image: Image file.
        out: PNG file that is written.
        class_name: One of the network's classes; the most likely one where not given.
        stage: Which feature map, as in `convatlas features`; the last that has more than one place where not
            given.
        device: cpu or cuda; a GPU where there is one.
    """
    from convatlas.files import write_atomic
    from convatlas.predict.explain import draw_explanation, explain, heat_size
    from convatlas.predict.load import load

    if out.suffix != ".png":
        raise ValueError(f"`--out`={str(out)!r}; expected a name that ends in .png")
    found = explain(load(network, workers=1, device=device), image, class_name=class_name, stage=stage)
    write_atomic(out, draw_explanation(found))
    other = "" if found.answer == found.class_name else f" (the answer is {found.answer})"
    where = f"{found.layer}, {heat_size(found)} places"
    print(f"{plain(found.class_name)} {found.probability:.1%}{other}: {out} ({where})")
