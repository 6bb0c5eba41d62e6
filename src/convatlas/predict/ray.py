"""The same predictor on many machines: Ray Data hands out files, and gathers predictions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from convatlas.predict.job import PartRunner, Parts, Results
from convatlas.predict.outputs import Prediction, Skipped
from convatlas.predict.predictor import Predictor

WAIT_S = 30.0
"""Seconds that a cluster may take to answer the first call."""
CHUNK_FILES = 64
"""Files that a machine gets at a time."""


def ray_runner(predictor: Predictor, *, top: int | None = None, fps: float | None = 1.0) -> PartRunner:
    """Predicts the files of a job on a Ray cluster: the one that RAY_ADDRESS names, else one on this machine.

    The network travels to the machines; the files must have the same names there, as on a shared disk, and
    convatlas must be installed.

    Args:
        predictor: predictions.
        top: how many classes to name.
        fps: frames a second that are taken from a film; None for all.

    Raises:
        ValueError: Ray is not installed.
    """
    ray, count = _require_ray(), predictor.check(top, fps)

    def run(parts: Parts) -> Iterator[tuple[int, Results]]:
        rows = [
            {"part": number, "start": start, "files": json.dumps(files[start : start + CHUNK_FILES])}
            for number, files in parts.items()
            for start in range(0, len(files), CHUNK_FILES)
        ]
        if not rows:
            return
        with _quiet_ray(ray):
            if not ray.is_initialized():
                check_address()
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            yield from _in_parts(_mapped(ray, rows, predictor, count, fps), parts)

    return run


class Worker:
    """Predictions chunks of files, on one of the machines.

    Args:
        predictor: the place of a `Predictor` in Ray's store.
        folder: against which names of files are meant.
        top: how many classes to name.
        fps: frames a second that are taken from a film; None for all.
    """

    def __init__(self, predictor: Any, folder: str, top: int, fps: float | None) -> None:
        import ray
        import torch

        sent: Predictor = ray.get(predictor)
        # What Ray keeps is shared and may not be written to; a network of its own may.
        self.predictor = sent.on("cuda" if torch.cuda.is_available() else "cpu")
        os.chdir(folder)
        self.top, self.fps = top, fps

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Adds the column `results` to rows with `files`."""
        results = [
            json.dumps(
                list(map(_packed, self.predictor.stream(json.loads(files), top=self.top, fps=self.fps)))
            )
            for files in rows["files"]
        ]
        return {"part": rows["part"], "start": rows["start"], "results": results}


def _mapped(ray: Any, rows: list[dict[str, Any]], predictor: Predictor, top: int, fps: float | None) -> Any:
    """The rows with what was said, in the order in which they are done."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # A worker for each GPU where there are some, else one for each machine, with all of its cores.
    gpus = int(sum(node.get("GPU", 0) for node in resources))
    cores = [int(node["CPU"]) for node in resources if node.get("CPU", 0) >= 1]
    share = {"num_gpus": 1} if gpus else {"num_cpus": min(cores, default=1)}
    workers = gpus or max(1, sum(count // min(cores) for count in cores))
    mapped = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        fn_constructor_args=(ray.put(predictor.on("cpu")), str(Path.cwd()), top, fps),
        **share,
    )
    return mapped.iter_rows()


def _in_parts(rows: Any, parts: Parts) -> Iterator[tuple[int, Results]]:
    """The predictions of each part in order, when all of them have come."""
    gathered: dict[int, dict[int, str]] = {}
    for row in rows:
        number = int(row["part"])
        chunks = gathered.setdefault(number, {})
        chunks[int(row["start"])] = row["results"]
        if len(chunks) * CHUNK_FILES >= len(parts[number]):
            for start in sorted(chunks):
                for entry in json.loads(chunks[start]):
                    yield number, _unpacked(entry)
            del gathered[number]


def _packed(results: Results) -> dict[str, Any]:
    return dataclasses.asdict(results)


def _unpacked(entry: dict[str, Any]) -> Results:
    if "reason" in entry:
        return Skipped(**entry)
    entry["top"] = tuple((name, share) for name, share in entry["top"])
    return Prediction(**entry)


@contextlib.contextmanager
def _quiet_ray(ray: Any) -> Generator[None]:
    """Ray Data draws bars and logs plans; here, the job has a bar of its own."""
    context = ray.data.DataContext.get_current()
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)  # What its processes print is no answer.
    before = context.enable_progress_bars
    logger = logging.getLogger("ray.data")
    level = logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)
        sys.stdout.flush()
        os.dup2(own, 1)
        os.close(own)


def check_address() -> None:
    """Calls the cluster that RAY_ADDRESS names, since Ray itself waits for it without an end in sight.

    Raises:
        ValueError: it does not answer within `WAIT_S`, or the address is none.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"RAY_ADDRESS={address!r}; expected HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=WAIT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"RAY_ADDRESS={address!r}: the cluster does not answer ({reason})") from None


def _require_ray() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.data  # pyright: ignore[reportUnusedImport]  # Makes `ray.data` there.
    except ImportError:
        raise ValueError(
            "clusters are run by Ray: pip install 'ray[data]', or '.[ray]' in a checkout"
        ) from None
    return ray
