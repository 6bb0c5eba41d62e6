"""Which images engines are checked, timed and calibrated on."""

import pytest
import torch
from torch import Tensor

from convatlas.engines.agreement import Agreement
from convatlas.engines.backend import Job, Precision
from convatlas.engines.request import EngineRequest, make_inputs


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


@pytest.mark.parametrize(
    ("error", "rounding", "refusal"),
    [
        pytest.param(9e-5, 0.0, "", id="within"),
        pytest.param(
            2e-4, 1e-5, "its logits differ by 2.0e-04 of the largest; 1.0e-04 is allowed", id="beyond"
        ),
        pytest.param(3.9e-3, 1e-3, "", id="within-four-roundings"),
        pytest.param(
            4.1e-3, 1e-3, "its logits differ by 4.1e-03 of the largest; 4.0e-03 is allowed", id="beyond-them"
        ),
        pytest.param(
            0.2,
            0.3,
            "its logits differ by 2.0e-01 of the largest (the network's own are off by 3.0e-01, from "
            "rounding); 1.0e-04 is allowed",
            id="nothing-but-rounding",
        ),
        pytest.param(
            float("nan"), 0.3, "its logits differ by nan of the largest; 1.0e-04 is allowed", id="no-number"
        ),
    ],
)
def test_logits_are_held_to_the_rounding_of_the_network_itself(
    error: float, rounding: float, refusal: str
) -> None:
    request = EngineRequest(Job((1, 1, 4, 4), "fp32", 1), 1e-4, 0.9, ())
    found = Agreement(error, 1.0, 1)
    assert request.refusal(found, "fp32", False, lambda: rounding) == refusal
