"""From a run folder, a name or a file to the network that predicts, with everything that it needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from convatlas.catalog.cards import all_aliases, all_cards, find_card, is_model
from convatlas.data.transforms import Transform
from convatlas.engines.backend import Precision
from convatlas.engines.exported import ExportedNetwork, has_suffix, open_exported
from convatlas.errors import nearest
from convatlas.metrics.probabilities import Outputs
from convatlas.models.network import Network
from convatlas.models.registry import create_model
from convatlas.predict.confidence import make_confidence, read_held_back
from convatlas.predict.engine_policy import EngineName, Workload
from convatlas.predict.predictor import Predictor
from convatlas.runs.model_spec import ModelSpec
from convatlas.runs.run import RECORD, WEIGHTS, RunError, open_run
from convatlas.weights.errors import WeightsError
from convatlas.weights.files import read_safetensors_metadata, read_weights
from convatlas.weights.load import load_own
from convatlas.weights.published import find_published, imagenet_classes


def load(
    source: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    engine: EngineName | None = None,
    workload: Workload | int | None = None,
    precision: Precision = "fp32",
    calibration: Any = None,
    batch_size: int = 32,
    workers: int | None = None,
    device: str | torch.device | None = None,
    exact: bool = False,
    outputs: Outputs = "auto",
    coverage: float | None = None,
    unknown: float | None = None,
) -> Predictor:
    """Loads a network together with its transform and class names, ready to say what is on images.

    Args:
        source: a `Run`, or the folder that training left; a network that has published weights, such as
            "efficientnet_lite0", or "resnet18.a1_in1k" for those of one tag; the `weights.safetensors` of a
            run; or a file that `convatlas export` wrote.
        class_names: names for the logits, where those that come along shall not be used.
        engine: as in `Predictor`.
        workload: as in `Predictor`.
        precision: as in `Predictor`.
        calibration: as in `Predictor`.
        batch_size: images that go through the network together.
        workers: threads that read images; None for one a core.
        device: where the network runs; None for the first GPU, or the processor where there is none.
        exact: decode each JPEG at its full size, as in `Predictor`.
        outputs: "logits", "probabilities", or "auto" to look at the numbers, as in `Predictor`.
        coverage: of a run that held images back, name with each answer the set of classes that holds the
            right one with this probability.
        unknown: of such a run, say which images are of none of the classes; of those that are of one, about
            this share is refused by mistake.

    Raises:
        RunError: there is no such run, or the file is damaged, not one of these, or does not fit.
        WeightsError: the published weights cannot be had, or a file would run code.
        ValueError: `class_names` does not fit, or an option is out of its range.
    """
    confidence = None
    if coverage is not None or unknown is not None:
        confidence = make_confidence(read_held_back(_run_folder(source)), coverage=coverage, unknown=unknown)
    predictor = Predictor(
        open_network(source),
        class_names=class_names,
        engine=engine,
        workload=workload,
        precision=precision,
        calibration=calibration,
        batch_size=batch_size,
        workers=workers,
        device=device,
        exact=exact,
        outputs=outputs,
    )
    predictor.confidence = confidence
    return predictor


def _run_folder(source: str | os.PathLike[str]) -> Path:
    """The folder of a run.

    Raises:
        ValueError: the source is none.
    """
    path = Path(source)
    folder = path.parent if path.is_file() else path
    if not (folder / RECORD).is_file():
        raise ValueError(f"{source}: `coverage` and `unknown` need the folder of a run that held images back")
    return folder


def open_network(source: str | os.PathLike[str]) -> Network[Any] | ExportedNetwork:
    """A network with its weights, or the one in an exported file; raises what `load` raises."""
    return open_exported(Path(source)) if is_exported(source) else load_network(source)


def is_exported(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a file that `convatlas export` wrote, which is run by the engine of its kind."""
    return has_suffix(Path(source)) and not Path(source).is_dir()


def load_network(source: str | os.PathLike[str]) -> Network[Any]:
    """Loads a network with its weights, in evaluation mode.

    Args:
        source: as `load` takes it, exported files excepted: they hold no network of the atlas any more.

    Returns:
        The network. Its `transform` brings an image (a PIL image) to the tensor (C, H, W) that it was
        trained on; its `class_names` name the logits.

    Raises:
        RunError: as `load`.
        WeightsError: as `load`.
    """
    path, text = Path(source), os.fspath(source)
    name, _, tag = text.partition(".")
    if is_model(name) and not (path / RECORD).is_file() and not path.is_file():
        return _published(name, tag or True)
    if path.is_file():
        if path.name == WEIGHTS and (path.parent / RECORD).is_file() and _is_finished(path.parent):
            return _from_file(open_run(path.parent).weights)
        return _from_file(path)
    try:
        return _from_file(open_run(path).weights)
    except RunError as error:
        if path.exists() or len(path.parts) > 1:
            raise
        close = nearest(text, [*all_cards(), *all_aliases()])
        raise RunError(f"{error}; nor a network, of which the nearest are {close}") from None


def _is_finished(folder: Path) -> bool:
    """Whether a record that can be read says that the run is finished."""
    try:
        return open_run(folder).state == "finished"
    except RunError:
        return False


def _published(name: str, tag: bool | str) -> Network[Any]:
    """A network with its published weights and the transform that they were published with."""
    name = find_card(name).name
    entry = find_published(name, tag)
    net = create_model(name, pretrained=tag)
    net.transform = Transform(
        "photo", entry.input_size, entry.mean, entry.std, entry.interpolation, entry.crop_pct
    )
    names = imagenet_classes()
    net.class_names = names if len(names) == net.num_classes else ()
    return net.eval()


def _from_file(path: Path) -> Network[Any]:
    """A network from the safetensors file of a run, whose header says all there is to know."""
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        read_weights(path)  # Refuses a file that would run code, which is worse than what follows.
        raise WeightsError(
            f"{path}: does not say which network its weights belong to; build that with "
            "`convatlas.create_model` and fill it with `convatlas.weights.load_foreign`"
        )
    facts = read_safetensors_metadata(path)
    try:
        net = ModelSpec.from_header(facts).build()
        load_own(net, read_weights(path))
    except KeyError as error:
        raise RunError(f"{path}: its header does not say {error}") from None
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: {error}") from None
    return net.eval()
