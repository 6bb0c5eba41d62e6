"""From a run folder back to the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convatlas.data.transforms import read_transform
from convatlas.models.network import Network
from convatlas.models.registry import create_model
from convatlas.training.run import WEIGHTS, RunError, open_run
from convatlas.weights.files import read_safetensors_metadata, read_weights
from convatlas.weights.load import load_own


def load(run: str | Path) -> Network[Any]:
    """Loads a trained network.

    Args:
        run: a run folder.

    Returns:
        The network in evaluation mode. Its `transform` brings a picture (a PIL image) to the tensor
        (C, H, W) that it was trained on; its `class_names` name the scores.

    Raises:
        RunError: the folder is not that of a finished run, or its weights are damaged or do not fit.
    """
    folder = open_run(Path(run)).folder
    path = folder / WEIGHTS
    try:
        facts = read_safetensors_metadata(path)
        net = create_model(facts["network"], num_classes=int(facts["num_classes"]))
        load_own(net, read_weights(path))
        net.transform = read_transform(facts["transform"])
        net.class_names = tuple(json.loads(facts["class_names"]))
    except KeyError as error:
        raise RunError(f"{path}: its header does not say {error}") from None
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    return net.eval()
