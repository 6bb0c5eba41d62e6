"""Which images engines are checked, timed and calibrated on."""

import pytest
import torch
from torch import Tensor

from convatlas.inference.engines.job import Job, Precision
from convatlas.inference.engines.question import make_inputs


@pytest.fixture
def images() -> Tensor:
    """Twelve images, (12, 1, 4, 4), each of its own number."""
    return torch.arange(12.0)[:, None, None, None].expand(-1, 1, 4, 4)


def numbers(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].int().tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_learns_nothing_is_checked_on_all_images(images: Tensor, precision: Precision) -> None:
    inputs = make_inputs(Job((1, 1, 4, 4), precision, 1), images)
    assert inputs.are_real and inputs.calibration is None
    assert numbers(inputs.check) == list(range(12))


def test_int8_is_checked_on_images_that_it_has_not_seen(images: Tensor) -> None:
    inputs = make_inputs(Job((1, 1, 4, 4), "int8", 1), images)
    assert inputs.calibration is not None
    assert numbers(inputs.check) == [3, 7, 11]
    assert sorted(numbers(inputs.check) + numbers(inputs.calibration)) == list(range(12))


def test_few_images_serve_for_both(images: Tensor) -> None:
    inputs = make_inputs(Job((1, 1, 4, 4), "int8", 1), images[:7])
    assert inputs.calibration is not None
    assert numbers(inputs.check) == numbers(inputs.calibration) == list(range(7))


def test_whole_batches_are_checked(images: Tensor) -> None:
    inputs = make_inputs(Job((5, 1, 4, 4), "bf16", 1), images)
    assert numbers(inputs.example) == [0, 1, 2, 3, 4]
    assert numbers(inputs.check) == [*range(12), 0, 1, 2]
