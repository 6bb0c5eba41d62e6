"""Networks into files that run elsewhere: ONNX, torch.export, OpenVINO, and those for phones."""

from __future__ import annotations

import copy
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.catalog.cards import find_card
from convatlas.data.transforms import card_transform
from convatlas.engines.agreement import compare, rounding_error
from convatlas.engines.backend import EngineError, Job, require
from convatlas.engines.exported import check_suffix, further_files, metadata_of, open_exported
from convatlas.engines.mixed import LayerCost, mixes, names_in_float, rank_layers
from convatlas.engines.mobile import check_batch, find_format, write_mobile
from convatlas.engines.quiet import quiet
from convatlas.engines.request import (
    AGREEMENT,
    TOLERANCES,
    EngineRequest,
    Inputs,
    calibration_images,
    check_bounds,
    input_shape,
    make_inputs,
)
from convatlas.models.model_file import ModelFile
from convatlas.models.network import Network, check_count
from convatlas.models.registry import create_model

PACKAGES = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".pt2": (), ".xml": ("openvino",)}


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file; beside an .xml lies a .bin, beside those for phones a .json.
        bytes: of all files.
        error: largest difference between the file's logits and the network's, relative to the largest.
        same_top: share of the images compared whose most likely class stays the same.
        images: that were compared.
        layers: with int8 where all layers in int8 did not agree, each layer with its effect and its cost, the
            worst first, and whether it stayed in float.
    """

    path: Path
    bytes: int
    error: float
    same_top: float
    images: int
    layers: tuple[LayerCost, ...] = ()


def export(
    model: nn.Module,
    path: str | Path,
    input_size: int | tuple[int, int, int] | None = None,
    *,
    batch_size: int = 1,
    dynamic_batch: bool = False,
    int8: bool = False,
    calibration: Tensor | Iterable[Tensor] | None = None,
    tolerance: float | None = None,
    agreement: float = AGREEMENT,
) -> Exported:
    """Writes a network into a file, runs the file, and compares its logits with the network's own.

    The network's `transform` and `class_names` go along as metadata, for phones as PATH.json. A file that
    does not agree is not left behind.

    Args:
        model: any network with one input, on the CPU.
        path: what it ends in says the format: .onnx, .pt2 (torch.export), .xml (OpenVINO), .ncnn.param, .mnn,
            .pte (ExecuTorch) or .tflite (LiteRT).
        input_size: px, or C, H, W; None for the network's own.
        batch_size: B of the file; 1 for ncnn.
        dynamic_batch: make a file for any B; not for ncnn, ExecuTorch and LiteRT.
        int8: quantise weights and activations; .onnx and .xml only. Where that does not agree, the layers
            that lose most stay in float: the worst, then two, four, ... to half of them.
        calibration: images that int8 takes its ranges from, as in `convatlas.optimize`.
        tolerance: largest relative difference between logits that is allowed; None as in
            `convatlas.optimize`.
        agreement: with int8, smallest share of the checked images whose most likely class must stay the same.

    Raises:
        EngineError: a package is missing (the message says how to install it), the network cannot be written
            in this format, or the file does not agree with it.
        ValueError: an argument is out of its range.
        OSError: the file cannot be written.
    """
    path = Path(path)
    _check_arguments(path, int8, batch_size, dynamic_batch)
    check_bounds(tolerance, agreement)
    precision = "int8" if int8 else "fp32"
    shape = (batch_size, *input_shape(model, input_size))
    job = Job(shape, precision, torch.get_num_threads())
    net = copy.deepcopy(model).eval() if any(module.training for module in model.modules()) else model
    inputs = make_inputs(job, calibration_images(calibration, job))
    with torch.inference_mode():
        expected = torch.cat([net(part) for part in inputs.check.split(batch_size)])
    request = EngineRequest(job, TOLERANCES[precision] if tolerance is None else tolerance, agreement, ())
    rounding = functools.cache(
        lambda: 0.0 if tolerance is not None else rounding_error(net, inputs.check, expected)
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".convatlas-") as folder:
        draft = Path(folder) / path.name
        program, facts = _program(net, shape, dynamic_batch), metadata_of(net, job.shape[1:])
        written = _written(program, draft, facts, inputs, (None if dynamic_batch else batch_size, *shape[1:]))
        refusal = ""
        for mix, logits in written:
            found = compare(logits, expected)
            refusal = request.refusal(found, precision, inputs.are_real, rounding)
            if not refusal:
                size = _move(draft, path)
                return Exported(path, size, found.error, found.same_top, found.images, mix)
    raise EngineError(f"{path}: was not written, as {refusal}")


def _written(
    program: torch.export.ExportedProgram,
    draft: Path,
    facts: dict[str, str],
    inputs: Inputs,
    shape: tuple[int | None, int, int, int],
) -> Iterator[tuple[tuple[LayerCost, ...], Tensor]]:
    """Writes the file, and what it answers to the images of the check; with int8, one mix after the other."""
    batch = shape[0] or len(inputs.example)
    if find_format(draft) is not None:
        yield (), write_mobile(program, draft, facts, inputs.check, shape)
        return
    images = inputs.calibration
    if images is None:
        _write(program, draft, facts, None)
        yield (), _logits(draft, inputs.check, batch)
        return
    for mix in mixes(lambda: rank_layers(program, images)):
        _write(program, draft, facts, images, names_in_float(mix))
        yield mix, _logits(draft, inputs.check, batch)


def untrained_network(name: str | ModelFile) -> Network[Any]:
    """A network of the atlas as it is initialised, with the transform of its card.

    Args:
        name: a name, or a network with options; its input size becomes the transform's.

    Raises:
        UnknownNameError: there is none of that name.
    """
    net = create_model(name)
    card, px = find_card(net.name), net.planned_input_size
    size = card.input_size if px is None else (card.input_size[0], px, px)
    net.transform = card_transform(dataclasses.replace(card, input_size=size))
    return net.eval()


def _check_arguments(path: Path, int8: bool, batch_size: int, dynamic_batch: bool) -> None:
    check_suffix(path)
    if int8 and path.suffix not in (".onnx", ".xml"):
        raise ValueError(f"{path}: int8 is written as .onnx or .xml")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    check_count("batch_size", batch_size, least=1)
    form = find_format(path)
    if form is not None:
        check_batch(path, form, batch_size, dynamic_batch)
        require(*form.load().PACKAGES, extra=form.extra)
        return
    require(*PACKAGES[path.suffix], *(("nncf",) if int8 and path.suffix == ".xml" else ()))


def _program(net: nn.Module, shape: tuple[int, int, int, int], dynamic: bool) -> torch.export.ExportedProgram:
    # A batch of one would be taken for a constant.
    batch = max(2, shape[0]) if dynamic else shape[0]
    example = torch.zeros(batch, *shape[1:])
    sizes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(_answering(net), (example,), dynamic_shapes=sizes)
    except Exception as error:  # Any error of a foreign network's own Python may come up here.
        reason = " ".join(str(error).split())[:300]
        raise EngineError(f"torch cannot export the network ({type(error).__name__}: {reason})") from None


def _answering(net: nn.Module) -> nn.Module:
    """The network without what serves its training alone: .pt2 would hold the weights of side classifiers."""
    if not (isinstance(net, Network) and hasattr(net, "aux_heads")):
        return net
    answering = copy.copy(net)
    answering._modules = {**net._modules, "aux_heads": nn.ModuleList()}
    return answering


def _write(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: dict[str, str],
    calibration: Tensor | None,
    in_float: Sequence[str] = (),
) -> None:
    try:
        if path.suffix == ".onnx":
            _write_onnx(program, path, metadata, calibration, in_float)
        elif path.suffix == ".xml":
            _write_xml(program, path, metadata, calibration, in_float)
        else:
            from convatlas.engines.pt2 import write_pt2

            write_pt2(program, path, metadata)
    except (EngineError, OSError):
        raise
    except Exception as error:  # Each library has errors of its own.
        reason = " ".join(str(error).split())[:300]
        raise EngineError(f"{path.name} cannot be written ({type(error).__name__}: {reason})") from None


def _write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: dict[str, str],
    calibration: Tensor | None,
    in_float: Sequence[str] = (),
) -> None:
    from convatlas.engines.backends.onnxruntime import quantise, write_onnx

    if calibration is None:
        write_onnx(program, path, metadata)
        return
    whole = path.with_name("whole.onnx")
    write_onnx(program, whole, metadata)
    quantise(whole, path, calibration.numpy(), in_float)
    whole.unlink()


def _write_xml(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: dict[str, str],
    calibration: Tensor | None,
    in_float: Sequence[str] = (),
) -> None:
    from convatlas.engines.backends import openvino as openvino_engine

    model = openvino_engine.convert(program)
    if calibration is not None:
        model = openvino_engine.quantise(model, calibration.numpy(), in_float)
    openvino_engine.save(model, path, metadata)


def _logits(path: Path, images: Tensor, batch: int) -> Tensor:
    try:
        net = open_exported(path)
        return torch.cat([net(part) for part in images.split(batch)])
    except Exception as error:  # As in `_write`.
        reason = " ".join(str(error).split())[:300]
        raise EngineError(f"{path.name} was written, and does not run ({reason})") from None


def _move(draft: Path, path: Path) -> int:
    """Moves the finished file to its place, what belongs to it first; returns bytes."""
    size = 0
    for part in (*further_files(draft), draft):
        size += part.stat().st_size
        shutil.move(part, path.with_name(part.name))
    return size
