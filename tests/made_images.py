"""A small network with fixed weights, and image files for it, made without training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import convatlas
from convatlas.data.transforms import Transform
from convatlas.models.network import Network
from convatlas.weights.files import write_safetensors

PX = 32
NAMES = tuple(f"class {k}" for k in range(10))
TRANSFORM = Transform("photo", (3, PX, PX), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 1.0)


def small_network(seed: int = 0) -> Network[Any]:
    """The toy network with random weights, its transform and class names."""
    torch.manual_seed(seed)
    net = convatlas.create_model("convnet_cs231n").eval()
    net.transform, net.class_names = TRANSFORM, NAMES
    return net


def weights_file(path: Path, **changed: str) -> Path:
    """The file that training leaves of `small_network`; entries of its header can be replaced."""
    import json

    header = {
        "network": "convnet_cs231n",
        "num_classes": "10",
        "transform": TRANSFORM.record(),
        "class_names": json.dumps(NAMES),
    }
    write_safetensors(path, small_network().state_dict(), header | changed)
    return path


def pixels(seed: int, height: int = PX, width: int = PX) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Noise, (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_images(folder: Path, count: int) -> list[Path]:
    """So many different PNG files of 32x32 px in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(pixels(number)).save(path)
    return paths


def expected(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The network's probabilities for an image of 32x32 px, computed without the code under test."""
    net = small_network()
    mean, std = np.array(TRANSFORM.mean), np.array(TRANSFORM.std)
    x = ((image / 255.0 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.no_grad():
        logits = net(torch.from_numpy(x))[0].double().numpy()
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()
