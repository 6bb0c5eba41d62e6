"""What is asked of `optimize`: the arguments, checked, and the images that engines are tried on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from convatlas.engines import ENGINES, find_engine
from convatlas.engines.agreement import Agreement
from convatlas.engines.backend import FP32_TOLERANCE, PRECISIONS, Job, Precision
from convatlas.errors import unknown

EAGER = "eager"
TOLERANCES: dict[Precision, float] = {"fp32": FP32_TOLERANCE, "bf16": 5e-2, "int8": 0.5}
AGREEMENT = 0.9
"""Share of images whose most likely class must stay the same, where nobody says otherwise."""
MOST_CHECKED = 64
# Two roundings of the same sums differ by the sum of their errors, whose largest varies from image to image.
ROUNDINGS = 4.0
MOST_ROUNDING = 0.02


@dataclasses.dataclass(frozen=True)
class EngineRequest:
    """Which engines may answer, and how well they must agree.

    Attributes:
        job: what is to be run.
        tolerance: largest difference between logits, relative to the largest logit.
        agreement: smallest share of images whose most likely class must stay the same.
        engines: names of those to try.
    """

    job: Job
    tolerance: float
    agreement: float
    engines: tuple[str, ...]

    def refusal(
        self, found: Agreement, precision: Precision, real_images: bool, rounding: Callable[[], float]
    ) -> str:
        """Why such logits are refused; "" where they are not.

        Args:
            found: the comparison.
            precision: that the logits were computed in. A higher one than the lowest allowed is held to its
                own bound.
            real_images: whether images were given; most likely classes of noise mean nothing.
            rounding: gives the error of the network's own logits, which other engines cannot be held to
                fall below.
        """
        bound = self.tolerance
        if precision != self.job.precision:
            bound = min(bound, TOLERANCES[precision])
        own = rounding() if precision == "fp32" and bound < found.error < float("inf") else 0.0
        if found.error <= MOST_ROUNDING:
            bound = max(bound, ROUNDINGS * own)
        if not found.error <= bound:
            cause = f" (the network's own are off by {own:.1e}, from rounding)" if own > bound else ""
            return f"its logits differ by {found.error:.1e} of the largest{cause}; {bound:.1e} is allowed"
        if precision != "fp32" and real_images and found.same_top < self.agreement:
            return (
                f"the most likely class stays the same on {found.same_top:.1%} of {found.images} images; "
                f"{self.agreement:.1%} is asked for"
            )
        return ""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Images that engines are tried on.

    Attributes:
        example: one batch, to time.
        check: some batches, to compare logits on.
        calibration: some to take ranges from; None where nobody needs them.
        are_real: whether they were given, rather than drawn.
    """

    example: Tensor
    check: Tensor
    calibration: Tensor | None
    are_real: bool

    def digest(self) -> str:
        """SHA-256 of the images for calibration, in hexadecimal; "" where there are none."""
        if self.calibration is None:
            return ""
        return hashlib.sha256(self.calibration.contiguous().numpy().tobytes()).hexdigest()


def read_request(
    model: nn.Module,
    input_size: int | tuple[int, int, int] | None,
    batch_size: int,
    precision: Precision,
    tolerance: float | None,
    agreement: float,
    engines: Sequence[str] | None,
    threads: int | None,
) -> EngineRequest:
    """Checks the arguments of `optimize`.

    Raises:
        ValueError: one is out of its range.
        UnknownNameError: there is no such engine or precision.
        EngineError: an engine that is named is not installed; the message says how to install it.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and (not isinstance(value, int) or value < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"`{name}`={value!r}; expected a whole number of at least 1")
    check_bounds(tolerance, agreement)
    known = (EAGER, *ENGINES)
    chosen = tuple(dict.fromkeys(known if engines is None else engines))
    for name in chosen:
        if name not in known:
            raise unknown("engine", name, known)
        if engines is not None and name != EAGER:
            find_engine(name).require()
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    device = "cpu" if device == "meta" else device  # A network that is only looked at.
    if device not in ("cpu", "cuda"):
        raise ValueError(f"the network is on the device {device!r}; expected cpu or cuda")
    shape = (batch_size, *input_shape(model, input_size))
    bound = TOLERANCES[precision] if tolerance is None else tolerance
    threads = threads or torch.get_num_threads()
    job = Job(shape, precision, threads, device, min(bound, FP32_TOLERANCE), bound, agreement)
    return EngineRequest(job, bound, agreement, chosen)


def check_bounds(tolerance: float | None, agreement: float) -> None:
    """Checks how well logits must agree.

    Raises:
        ValueError: a bound is out of its range.
    """
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"`tolerance`={tolerance!r}; expected a relative error of at least 0")
    if not 0 <= agreement <= 1:
        raise ValueError(f"`agreement`={agreement!r}; expected a share from 0 to 1")


def input_shape(model: nn.Module, input_size: int | tuple[int, int, int] | None) -> tuple[int, int, int]:
    """C, H, W of a network's input.

    Args:
        model: the network.
        input_size: px, or C, H, W; None for the size that a network of the atlas was published for, or
            that the plan it was built from has.

    Raises:
        ValueError: the size is not of that form, or there is none.
    """
    config, name = getattr(model, "config", None), getattr(model, "name", "")
    chans = getattr(config, "in_chans", 3)
    if input_size is None:
        from convatlas.catalog.cards import find_card, is_model

        planned = getattr(model, "planned_input_size", None)
        size = (chans, planned, planned) if isinstance(planned, int) else None
        size = size or getattr(getattr(model, "transform", None), "input_size", None)
        if size is None and isinstance(name, str) and is_model(name):
            size = find_card(name).input_size
        if size is None:
            raise ValueError(
                "`input_size`=None; expected px or (C, H, W) for a network that is not in the atlas"
            )
        return (chans, size[1], size[2])
    size = (chans, input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(size) != 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"`input_size`={input_size!r}; expected px, such as 224, or (C, H, W)")
    return size


def calibration_images(calibration: Tensor | Iterable[Tensor] | None, job: Job) -> Tensor | None:
    """The given images as one tensor (N, C, H, W) in float32.

    Raises:
        ValueError: they do not fit the job, or int8 has none.
    """
    if calibration is None:
        if job.precision == "int8":
            raise ValueError(
                "`calibration`=None; int8 takes its ranges from images: give some hundred, as (N, C, H, W)"
            )
        return None
    parts = [calibration] if isinstance(calibration, Tensor) else list(calibration)
    parts = [part[None] if part.dim() == 3 else part for part in parts]
    wrong = next((part for part in parts if part.dim() != 4 or part.shape[1:] != job.shape[1:]), None)
    if wrong is not None or not sum(map(len, parts)):
        received = "no image" if wrong is None else str(tuple(wrong.shape))
        shape = ", ".join(map(str, job.shape[1:]))
        raise ValueError(f"`calibration`: expected images of shape (N, {shape}); received {received}")
    return torch.cat(parts).detach().to("cpu", torch.float32)


def make_inputs(job: Job, images: Tensor | None) -> Inputs:
    """Images for timing, checking and calibrating; drawn where none are given."""
    batch = job.shape[0]
    if images is None:
        example = synthetic_images(job.shape)
        return Inputs(example, example, None, are_real=False)
    kept = torch.arange(len(images)) % 4 == 3
    learns = job.precision == "int8"
    to_learn, to_check = (images[~kept], images[kept]) if learns and len(images) >= 8 else (images, images)
    wanted = -(-min(len(to_check), max(MOST_CHECKED, batch)) // batch) * batch
    check = to_check[torch.arange(wanted) % len(to_check)]
    return Inputs(check[:batch], check, to_learn if learns else None, are_real=True)


def synthetic_images(shape: tuple[int, int, int, int]) -> Tensor:
    """Random images with as much contrast at each scale as photographs have, of mean 0 and deviation 1.

    White noise is nothing that a network has seen; its logits for that can hang on the last digit.

    Args:
        shape: B, C, H, W.

    Returns:
        (B, C, H, W), always the same.

    Source: Field 1987, "Relations between the statistics of natural images and the response properties of
    cortical cells": amplitude falls with frequency, so that each octave has the same contrast.
    """
    draw = torch.Generator().manual_seed(0)
    batch, chans, height, width = shape
    images = torch.zeros(shape)
    scale = 1
    while scale <= min(height, width):
        size = (-(-height // scale), -(-width // scale))
        octave = torch.randn((batch, chans, *size), generator=draw)
        images += nn.functional.interpolate(octave, (height, width), mode="bilinear")
        scale *= 2
    return (images - images.mean()) / images.std(correction=0).clamp_min(1e-6)
