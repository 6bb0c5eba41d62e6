"""Networks that were exported into a file, run as they lie there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convatlas._version import __version__
from convatlas.catalog.cards import is_model
from convatlas.data.transforms import Transform, read_transform
from convatlas.devices import torch_threads
from convatlas.engines.backend import BackendConfig, BatchFn, EngineError, require
from convatlas.engines.mobile import FORMATS, find_format, open_mobile, read_sidecar, sidecar
from convatlas.models.network import Network, check_count
from convatlas.runs.model_spec import overrides_of

SUFFIXES = (".onnx", ".pt2", ".xml")
ALL_SUFFIXES = (*SUFFIXES, *FORMATS)


class ExportedNetwork(nn.Module):
    """A network in a file that `convatlas export` wrote, or in any ONNX or OpenVINO file of one input.

    Attributes:
        name: of the network, where the file says it.
        path: of the file.
        input_size: C, H, W.
        batch_size: B that the file is for; None for any.
        transform: brings an image to the tensor that the network was trained on; None where the file does
            not say.
        class_names: a name for each logit; empty where the file names none.
        num_classes: K.

    Shape: x (B, C, H, W) -> (B, K). B may be any number: portions of `batch_size` are run one by one.
    """

    def __init__(
        self,
        path: Path,
        metadata: dict[str, str],
        shape: tuple[int | None, int, int, int],
        num_classes: int,
        open_for: Callable[[int], BatchFn],
    ) -> None:
        super().__init__()
        self.path = path
        self.name = metadata.get("network", "")
        self.batch_size, self.input_size = shape[0], (shape[1], shape[2], shape[3])
        self.num_classes = num_classes
        self.transform, self.class_names = _read_metadata(path, metadata, num_classes)
        self._open_for = open_for
        self._runners: dict[int, BatchFn] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of images.

        Raises:
            ValueError: they have another C, H or W than the file is for.
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != self.input_size:
            wanted = ", ".join(map(str, ("B", *self.input_size)))
            raise ValueError(f"{self.path}: is for images of shape ({wanted}); received {tuple(x.shape)}")
        x = x.detach().float()
        batch = self.batch_size or max(1, len(x))
        parts: list[Tensor] = []
        for part in x.split(batch):
            filled = torch.cat([part, part.new_zeros(batch - len(part), *part.shape[1:])])
            parts.append(self._runner(batch)(filled)[: len(part)])
        return torch.cat(parts)

    def _runner(self, batch: int) -> BatchFn:
        if batch not in self._runners:
            # A batch of any size is rarely asked for in many sizes; each one holds a copy of the weights.
            self._runners = {batch: self._open_for(batch)}
        return self._runners[batch]


def open_exported(path: str | Path, *, threads: int | None = None) -> ExportedNetwork:
    """Opens an exported network on the engine that its file is for.

    Args:
        path: .onnx, .pt2, .xml (with the .bin beside it), or, with the .json beside it, .ncnn.param (and
            .ncnn.bin), .mnn, .pte or .tflite.
        threads: that may work on a batch; None for `torch.get_num_threads()`.

    Raises:
        EngineError: there is no such file, it is damaged, or its engine is not installed.
        ValueError: another suffix, or `threads` out of its range.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise EngineError(f"{path}: no such file")
    if threads is not None:
        check_count("threads", threads, least=1)
    openers = {".onnx": _open_onnx, ".pt2": _open_pt2, ".xml": _open_xml}
    opener = openers.get(path.suffix, _open_mobile)
    try:
        return opener(path, threads or torch.get_num_threads())
    except ValueError:
        raise
    except Exception as error:  # Each runtime has errors of its own.
        first = " ".join(str(error).split())[:200]
        raise EngineError(f"{path}: damaged, or no network of this kind ({first})") from None


def has_suffix(path: Path) -> bool:
    """Whether a name ends in what an exported file ends in."""
    return path.name.endswith(ALL_SUFFIXES)


def check_suffix(path: Path) -> None:
    """Checks what a name ends in.

    Raises:
        ValueError: that is of no format.
    """
    if not has_suffix(path):
        raise ValueError(f"{path}: expected a file that ends in {', '.join(ALL_SUFFIXES)}")


def further_files(path: Path) -> tuple[Path, ...]:
    """The files beside an exported one that belong to it."""
    form = find_format(path)
    if form is None:
        return (path.with_suffix(".bin"),) if path.suffix == ".xml" else ()
    return (*((path.with_suffix(form.weights),) if form.weights else ()), sidecar(path))


def metadata_of(net: nn.Module, input_size: tuple[int, int, int]) -> dict[str, str]:
    """What goes along with an exported network, as texts by name."""
    transform, names = getattr(net, "transform", None), getattr(net, "class_names", ())
    facts = {
        "convatlas": __version__,
        "network": getattr(net, "name", "") or type(net).__name__,
        "input_size": json.dumps(input_size),
    }
    if isinstance(net, Network) and is_model(net.name):
        facts["model"] = json.dumps(overrides_of(net), sort_keys=True, default=str)
    if isinstance(transform, Transform):
        facts["transform"] = transform.record()
        facts["input"] = _describe(transform)
    if names:
        facts["class_names"] = json.dumps(list(names), ensure_ascii=False)
    return facts


def _describe(transform: Transform) -> str:
    """How an image becomes the input, in words that another program's author can follow."""
    channels, height, width = transform.input_size
    colour = "RGB" if channels == 3 else "grey" if channels == 1 else f"{channels} channels"
    if transform.kind == "digit":
        resized = "the ink, light on black, cut out and centred"
    else:
        resized = (
            f"short side resized to {transform.resized_side} px ({transform.interpolation}), central crop"
        )
    return (
        f"float32 (B, {channels}, {height}, {width}), {colour}, values in [0, 1], then (value - mean) / std "
        f"with mean {list(transform.mean)} and std {list(transform.std)}; {resized} of {height}x{width} px"
    )


def _read_metadata(
    path: Path, metadata: dict[str, str], num_classes: int
) -> tuple[Transform | None, tuple[str, ...]]:
    try:
        transform = read_transform(metadata["transform"]) if "transform" in metadata else None
        names = tuple(map(str, json.loads(metadata.get("class_names", "[]"))))
    except (ValueError, TypeError) as error:
        raise EngineError(f"{path}: its metadata is damaged ({error})") from None
    if names and len(names) != num_classes:
        raise EngineError(f"{path}: its metadata names {len(names)} classes; there are {num_classes} logits")
    return transform, names


def _open_onnx(path: Path, threads: int) -> ExportedNetwork:
    require("onnxruntime")
    import onnxruntime

    _check_external(path)
    from convatlas.engines.backends.onnxruntime import open_onnx

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Only to read what the file says of itself, so nothing is optimised.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shape = _shape(path, [session.get_inputs()[0].shape, session.get_outputs()[0].shape])
    metadata = dict(session.get_modelmeta().custom_metadata_map)

    def open_for(batch: int) -> BatchFn:
        return open_onnx(path, (batch, *shape[0][1:]), threads, BackendConfig())

    return ExportedNetwork(path, metadata, *shape, open_for)


def _check_external(path: Path) -> None:
    """Refuses weights in other files that are links: a file must not show what lies elsewhere.

    Raises:
        EngineError: one is.
    """
    try:
        import onnx
    except ImportError:  # Without it only the runtime's own check is left.
        return
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            target = path.parent / entry.value
            if entry.key == "location" and (
                target.is_symlink()
                or not target.resolve().is_relative_to(path.parent.resolve())
                or (target.exists() and target.stat().st_nlink > 1)
            ):
                raise EngineError(f"{path}: its weights in {entry.value} are a link to another file; refused")


def _open_xml(path: Path, threads: int) -> ExportedNetwork:
    with path.open("rb") as file:
        if b"<net" not in file.read(4096):  # OpenVINO prints a log of its own, and reads other formats too.
            raise EngineError(f"{path}: damaged, or no network of OpenVINO's (XML that begins with <net>)")
    from convatlas.engines.backends.openvino import METADATA, open_model, openvino_core

    model = openvino_core().read_model(path)
    sizes = [
        [d.get_length() if d.is_static else None for d in port.get_partial_shape()]
        for port in (model.inputs[0], model.outputs[0])
    ]
    shape = _shape(path, sizes)
    metadata: dict[str, str] = {}
    if model.has_rt_info([METADATA]):
        metadata = {key: str(entry.value) for key, entry in model.rt_info[METADATA].items()}

    def open_for(batch: int) -> BatchFn:
        return open_model(path, (batch, *shape[0][1:]), threads, BackendConfig())

    return ExportedNetwork(path, metadata, *shape, open_for)


def _open_pt2(path: Path, threads: int) -> ExportedNetwork:
    from convatlas.engines.ports import ports
    from convatlas.engines.pt2 import read_pt2

    program, metadata = read_pt2(path)
    sizes = [[size if isinstance(size, int) else None for size in port] for port in ports(program)]
    shape = _shape(path, sizes)
    net = program.module()

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        with torch_threads(threads):
            return net(x)

    return ExportedNetwork(path, metadata, *shape, lambda batch: run)


def _open_mobile(path: Path, threads: int) -> ExportedNetwork:
    metadata, sizes = read_sidecar(path)
    shape = _shape(path, sizes)

    def open_for(batch: int) -> BatchFn:
        return open_mobile(path, (batch, *shape[0][1:]), threads)

    return ExportedNetwork(path, metadata, *shape, open_for)


def _shape(path: Path, sizes: list[Any]) -> tuple[tuple[int | None, int, int, int], int]:
    """Shape of the images, with None for any batch, and K.

    Raises:
        EngineError: there is no such network.
    """
    images, logits = ([size if isinstance(size, int) else None for size in port] for port in sizes)
    if len(images) != 4 or None in images[1:] or len(logits) != 2 or logits[1] is None:
        raise EngineError(
            f"{path}: takes {images} and gives {logits}; expected images (B, C, H, W) and logits (B, K)"
        )
    batch, chans, height, width = images
    assert chans is not None and height is not None and width is not None
    return (batch, chans, height, width), logits[1]
