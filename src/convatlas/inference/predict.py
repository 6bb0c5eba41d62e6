"""What is on a picture: the most likely classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convatlas.data.pictures import PictureError, read_picture
from convatlas.models.network import Network


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a network says about a picture.

    Attributes:
        picture: the file.
        top: the most likely classes with their probabilities, the most likely first.
    """

    picture: Path
    top: tuple[tuple[str, float], ...]

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        top = [{"class": name, "probability": round(share, 6)} for name, share in self.top]
        return {"picture": str(self.picture), "top": top}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why there is no answer for a picture.

    Attributes:
        picture: the file.
        reason: one line that names it.
    """

    picture: Path
    reason: str

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"picture": str(self.picture), "error": self.reason}


def predict(net: Network[Any], pictures: Iterable[Path], top: int = 3) -> Iterator[Answer | Refusal]:
    """Classifies picture files one by one; a bad file does not keep the others from an answer.

    Args:
        net: a network with its `transform` and `class_names`, as `convatlas.load` returns it.
        pictures: files.
        top: how many classes to name.

    Raises:
        ValueError: `top` is out of its range.
    """
    names, transform = net.class_names, net.transform
    if transform is None:
        raise ValueError("the network has no `transform`; load it with `convatlas.load`, or set one")
    if not 1 <= top <= len(names):
        raise ValueError(f"`top`={top}; expected 1 to {len(names)}, the number of classes")
    return (_answer(net, transform, Path(picture), top) for picture in pictures)


def _answer(
    net: Network[Any], transform: Callable[[Any], Tensor], picture: Path, top: int
) -> Answer | Refusal:
    try:
        x = transform(read_picture(picture))
    except PictureError as error:
        return Refusal(picture, str(error))
    except ValueError as error:
        return Refusal(picture, f"{picture}: {error}")
    with torch.inference_mode():
        shares, classes = net(x[None])[0].softmax(dim=0).topk(top)
    found = zip(classes.tolist(), shares.tolist(), strict=True)
    return Answer(picture, tuple((net.class_names[index], share) for index, share in found))
