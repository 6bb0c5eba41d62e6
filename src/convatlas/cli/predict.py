"""`convatlas predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from convatlas.predict.outputs import Prediction
    from convatlas.predict.predictor import Predictor


def predict_command(
    network: str,
    /,
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    top: int | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    out: Path | None = None,
    fps: str = "1",
    engine: Literal["eager", "auto"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] = "fp32",
    calibration_data: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    exact: Annotated[bool, Parameter(negative="")] = False,
    device: str | None = None,
    classes: Path | None = None,
    unknown: float | None = None,
    coverage: float | None = None,
    cluster: Literal["ray"] | None = None,
) -> int:
    """Say what is on images.

    A file that cannot be used is named with its reason, the others are predicted, and the exit code is 2. A
    job with --out that was killed goes on when the same command is given again. For a network of digits, dark
    ink on white paper and white ink on black both work.

    Args:
        network: Run folder that training left behind, network with published weights, such as
            efficientnet_lite0, or file of weights.
        images: Image files, folders, patterns, films, or - for standard input (an image, a film, or
            names of files).
        top: How many classes to show for each image; 3, or all where there are fewer.
        as_json: Print one JSON object a line, for machines.
        out: Write the predictions into this file, which ends in .jsonl, .csv or .parquet.
        fps: Frames a second that are taken from a film; or all.
        engine: eager, or auto for the fastest engine on this machine, which is sought once and remembered.
            If not given, auto where that is the sooner prediction: for many images, for long films, for live
            streams, and where less precision is allowed.
        precision: The lowest that the engine found by auto may compute in.
        calibration_data: Images for int8, like those to come: a folder, or a data set by its name, such as
            digits or folder:PATH.
        batch_size: Images that go through the network together.
        workers: Threads that read images; one for each core if not given.
        exact: Decode large JPEGs at their full size, which takes longer.
        device: cpu or cuda; a GPU if there is one, if not given.
        unknown: Say which images are of none of the classes; the number is the share of images of the classes
            that may be refused by mistake, such as 0.05. Needs a run with --set validation=0.2.
        coverage: Name with each answer the classes that hold the right one with this probability, such as
            0.95. Needs a run with --set validation=0.2.
        classes: File with a name for each class, one a line, in the order of the logits.
        cluster: Spread the files of a job with --out over a cluster: ray, at the address in RAY_ADDRESS.
    """
    for image in images:  # The parser lets them through, for the sake of "-".
        if len(image) > 1 and image.startswith("-") and not Path(image).exists():
            raise ValueError(f"Unknown option: {image}")
    if not images:
        raise ValueError("name at least one image after the network")
    if cluster is not None and out is None:
        raise ValueError("`--cluster` writes into a file: add --out, such as --out predictions.jsonl")
    from convatlas.escape import plain
    from convatlas.predict.engine_policy import Workload
    from convatlas.predict.job import begun_engine
    from convatlas.predict.load import load
    from convatlas.predict.outputs import Prediction
    from convatlas.predict.progress import watched

    if out is not None and out.suffix != ".jsonl" and (unknown is not None or coverage is not None):
        raise ValueError(f"`--out {out}`: with --unknown or --coverage, answers are written as .jsonl")
    names = None if classes is None else read_classes(classes)
    rate = None if fps == "all" else read_rate(fps)
    # On a cluster, nobody knows how fast its machines are.
    counted = images if cluster is None else None
    predictor = load(
        network,
        class_names=names,
        engine=engine,
        workload=Workload(counted, rate, begun=None if out is None else begun_engine(out)),
        precision=precision,
        calibration=calibration_data,
        batch_size=batch_size,
        workers=workers,
        device=device,
        exact=exact,
        unknown=unknown,
        coverage=coverage,
    )
    if predictor.engine == "auto" and engine is None and precision == "fp32":
        print(
            "convatlas: by the fastest engine here (--engine eager for the network itself)", file=sys.stderr
        )
    if out is not None:
        return write(predictor, images, out, top, rate, cluster)
    failed = False
    results = predictor.stream(images, top=top, fps=rate)
    for prediction in results if sys.stdout.isatty() else watched(results):
        failed |= not isinstance(prediction, Prediction)
        if as_json:
            print(json.dumps(prediction.record()))
        elif isinstance(prediction, Prediction):
            shown = "  ".join(f"{plain(name)} {share:.1%}" for name, share in prediction.top)
            at = "" if prediction.seconds is None else f" at {prediction.seconds:.2f} s"
            print(f"{plain(prediction.image)}{at}: {shown}{_judgement(prediction)}")
        else:
            print(f"convatlas: {plain(prediction.reason)}", file=sys.stderr)
    show_engines(predictor)
    return 2 if failed else 0


def _judgement(answer: Prediction) -> str:
    """Whether it is of none of the classes, and the set of its classes, where that was asked for."""
    from convatlas.escape import plain

    sure = "" if answer.classes is None else f"  in {{{', '.join(map(plain, answer.classes))}}}"
    return f"{sure}  none of the classes" if answer.unknown else sure


def write(
    predictor: Predictor,
    images: tuple[str, ...],
    out: Path,
    top: int | None,
    fps: float | None,
    cluster: str | None,
) -> int:
    """Runs a job, and says what became of it."""
    from convatlas.predict.job import run_job

    runner = None
    if cluster is not None:
        from convatlas.predict.ray import ray_runner

        runner = ray_runner(predictor, top=top, fps=fps)
    job = run_job(predictor, images, out, top=top, fps=fps, runner=runner)
    before = f", {job.resumed:,} files were predicted before" if job.resumed else ""
    before += f" ({job.earlier_refusals:,} refused)" if job.earlier_refusals else ""
    print(f"{job.out}: {job.predictions:,} predictions, {job.refusals:,} refused{before}")
    show_engines(predictor)
    return 2 if job.refusals or job.earlier_refusals else 0


def show_engines(predictor: Predictor) -> None:
    """Says on standard error how the engines were chosen that were not remembered."""
    for report in predictor.reports:
        if not report.remembered:
            print(report, file=sys.stderr)


def read_classes(path: Path) -> list[str]:
    """The lines of a file.

    Raises:
        ValueError: if it is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text; expected a class name on each line") from None


def read_rate(text: str) -> float:
    """A number of frames a second.

    Raises:
        ValueError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"`--fps`={text!r}; expected frames a second, such as 2, or all") from None
