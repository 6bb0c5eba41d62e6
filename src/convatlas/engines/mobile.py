"""Files for phones: ncnn, MNN, ExecuTorch and LiteRT, each written and run in a process of its own.

`python -m convatlas.engines.mobile FOLDER FILE` writes FILE from FOLDER/net.pt2, and what FILE answers to
FOLDER/images.npy into FOLDER/logits.npy. How to prepare an image, and the class names, are in FILE.json.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from convatlas.engines.backend import BackendConfig, BatchFn, EngineError
from convatlas.engines.quiet import quiet
from convatlas.engines.worker_pool import worker_environment
from convatlas.files import write_json

LONGEST = 1800
"""Seconds after which a converter is ended."""


@dataclasses.dataclass(frozen=True)
class MobileFormat:
    """A kind of files for phones.

    Attributes:
        name: of the library that runs them.
        module: has `convert`, `open_file` and `PACKAGES`.
        batches: that a file can be for: "one" image at a time, a "fixed" number, or "any".
        images: name of the input.
        logits: name of the output.
        weights: what the name of a second file, which holds the weights, ends in.
        extra: of this package, that has what is needed.
    """

    name: str
    module: str
    batches: Literal["one", "fixed", "any"]
    images: str
    logits: str
    weights: str = ""
    extra: str = "mobile"

    def load(self) -> Any:
        """The module."""
        return importlib.import_module(f"convatlas.engines.backends.{self.module}")


FORMATS = {
    ".ncnn.param": MobileFormat("ncnn", "ncnn", "one", "in0", "out0", ".bin"),
    ".mnn": MobileFormat("MNN", "mnn", "any", "images", "logits"),
    ".pte": MobileFormat("ExecuTorch", "executorch", "fixed", "input 0 of forward", "output 0 of forward"),
    ".tflite": MobileFormat("LiteRT", "litert", "fixed", "args_0", "output_0", extra="litert"),
}


def find_format(path: Path) -> MobileFormat | None:
    """The format of a file for phones, by what its name ends in; None where it is none."""
    return next((form for suffix, form in FORMATS.items() if path.name.endswith(suffix)), None)


def check_batch(path: Path, form: MobileFormat, batch_size: int, dynamic_batch: bool) -> None:
    """Checks that a file can be for such a batch.

    Raises:
        ValueError: it cannot.
    """
    if dynamic_batch and form.batches != "any":
        what = "one image at a time" if form.batches == "one" else "one number of images"
        raise ValueError(f"{path}: `dynamic_batch` is not for {form.name}, whose files take {what}")
    if form.batches == "one" and batch_size != 1:
        raise ValueError(f"{path}: `batch_size`={batch_size}; {form.name} takes one image at a time: 1")


def write_mobile(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: Mapping[str, str],
    images: Tensor,
    shape: tuple[int | None, int, int, int],
) -> Tensor:
    """Writes a network as a file for phones, in another process, which also runs the file.

    Args:
        program: for `shape`.
        path: of the file; it and those beside it are made in its folder.
        metadata: texts that go along.
        images: (N, C, H, W), which the file is run on, in whole batches.
        shape: B, C, H, W of the file; B is None for any.

    Returns:
        The file's logits, (N, K).

    Raises:
        EngineError: a package is missing, or the network cannot be written in this format or run from it.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mobile-") as name:
        folder = Path(name)
        with quiet():
            torch.export.save(program, folder / "net.pt2")
        np.save(folder / "images.npy", images.contiguous().numpy())
        request = {"batch": shape[0] or 1, "threads": torch.get_num_threads()}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        _run(folder, path)
        logits = torch.from_numpy(np.load(folder / "logits.npy"))
    write_sidecar(path, metadata, shape, logits.shape[1])
    return logits


def _run(folder: Path, path: Path) -> None:
    command = [sys.executable, "-m", "convatlas.engines.mobile", str(folder), str(path)]
    with (folder / "log.txt").open("wb") as log:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=LONGEST,
                env=worker_environment(folder),
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"its converter was not ready within {LONGEST // 60} minutes") from None
    failed = folder / "failed.txt"
    if failed.is_file():
        raise EngineError(failed.read_text(encoding="utf-8"))
    if done.returncode:
        names = {int(number): number.name for number in signal.Signals}
        how = names.get(-done.returncode, f"exit code {done.returncode}")
        said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise EngineError(f"its converter crashed ({how}){': ' + said[-1][:200] if said else ''}")


def sidecar(path: Path) -> Path:
    """The file that says what a file for phones takes and gives."""
    return path.with_name(f"{path.name}.json")


def write_sidecar(
    path: Path, metadata: Mapping[str, str], shape: tuple[int | None, int, int, int], num_classes: int
) -> None:
    """Writes what goes along with a file for phones, as JSON beside it."""
    form = find_format(path)
    assert form is not None
    common = {"layout": "NCHW", "type": "float32"}
    facts: dict[str, Any] = {name: _parsed(text) for name, text in metadata.items()}
    facts["format"] = form.name
    facts["images"] = {"name": form.images, "shape": list(shape), **common}
    facts["logits"] = {"name": form.logits, "shape": [shape[0], num_classes], "type": "float32"}
    write_json(sidecar(path), facts)


def read_sidecar(path: Path) -> tuple[dict[str, str], list[Any]]:
    """What `write_sidecar` wrote: the texts, and the shapes of images and logits.

    Raises:
        EngineError: it is not there, or damaged.
    """
    try:
        facts = json.loads(sidecar(path).read_text(encoding="utf-8"))
        shapes = [facts["images"]["shape"], facts["logits"]["shape"]]
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in facts.items()
        }
    except OSError:
        raise EngineError(
            f"{path}: expected {sidecar(path).name} beside it, which `convatlas export` writes and which "
            "says what the file takes"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{sidecar(path)}: is damaged ({error})") from None
    return texts, shapes


def open_mobile(path: Path, shape: tuple[int, int, int, int], threads: int) -> BatchFn:
    """Opens a file for phones on the library that it is for, in this process.

    Raises:
        EngineError: the library is not installed, or cannot read the file.
    """
    form = find_format(path)
    assert form is not None
    return form.load().open_file(path, shape, threads, BackendConfig())


def _parsed(text: str) -> Any:
    """A text, or the value that it is the JSON of."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


def main() -> None:
    """Writes and runs a file, or says in FOLDER/failed.txt why not."""
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    form = find_format(path)
    assert form is not None
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    images = torch.from_numpy(np.load(folder / "images.npy"))
    step = "cannot be written"
    try:
        with quiet():
            program = torch.export.load(folder / "net.pt2")
        form.load().convert(program, path)
        step = "was written, and does not run"
        shape = (request["batch"], images.shape[1], images.shape[2], images.shape[3])
        net = open_mobile(path, shape, request["threads"])
        np.save(folder / "logits.npy", torch.cat([net(part) for part in images.split(shape[0])]).numpy())
    except EngineError as error:
        (folder / "failed.txt").write_text(f"{path.name} {step}: {error}", encoding="utf-8")
    except Exception as error:  # Each library has errors of its own.
        reason = " ".join(str(error).split())[:300]
        text = f"{path.name} {step} ({type(error).__name__}: {reason})"
        (folder / "failed.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
