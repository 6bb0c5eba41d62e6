import math

import numpy as np
import pytest
import torch

from convatlas.data.augment import ColourJitter
from convatlas.data.colour import LIGHT_AXES, adjust, jitter_factors, light_steps, normalise
from convatlas.data.counter_random import uniform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
STILL = np.ones((4, 3))


def colours(batch: int = 4) -> torch.Tensor:
    return torch.randint(60, 180, (batch, 3, 9, 7), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )


@pytest.mark.parametrize("lead", [(), (5,), (2, 5)], ids=str)
def test_normalising_any_number_of_images(lead: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, (*lead, 3, 4, 6), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalise(images, mean, std).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("knob", "factor"), [("brightness", 1.2), ("brightness", 0.7), ("contrast", 0.6), ("saturation", 0.3)]
)
def test_each_adjustment_is_torchvisions(knob: str, factor: float) -> None:
    from torchvision.transforms.v2 import functional as tv

    images = colours()
    factors = STILL.copy()
    factors[:, ["brightness", "contrast", "saturation"].index(knob)] = factor
    ours = adjust(images, factors, np.zeros((4, 1)), **PLAIN)
    theirs = getattr(tv, f"adjust_{knob}")(images.float() / 255.0, factor)
    # It rounds the shares of grey to four digits, and the mean grey to a float.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_adjustments_of_one_image_in_a_row() -> None:
    from torchvision.transforms.v2 import functional as tv

    images = colours(1)
    ours = adjust(images, np.array([[1.1, 0.8, 0.5]]), np.array([[0.02, 0.0, -0.01]]), **PLAIN)
    theirs = images.float() / 255.0
    for name, factor in (("saturation", 0.5), ("brightness", 1.1), ("contrast", 0.8)):
        theirs = getattr(tv, f"adjust_{name}")(theirs, factor)
    theirs = theirs + torch.tensor([0.02, 0.0, -0.01])[:, None, None]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-4)


def test_normalisation_comes_last() -> None:
    images, mean, std = colours(), (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    factors = jitter_factors(uniform(0, 0, np.arange(4), "colour", 3), ColourJitter())
    steps = np.array([[0.1, 0.0, -0.1]]).repeat(4, axis=0)
    plain = adjust(images, factors, steps, **PLAIN)
    ours = adjust(images, factors, steps, mean, std)
    expected = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_grey_images_have_brightness_and_contrast() -> None:
    images = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8).view(1, 1, 2, 2)
    ours = adjust(images, np.array([[2.0, 0.5, 0.1]]), np.zeros((1, 1)), (0.0,), (1.0 / 255.0,))
    # Mean grey is 100: contrast gives 50, 100, 100, 150, and brightness doubles them.
    assert ours.flatten().tolist() == pytest.approx([100.0, 200.0, 200.0, 300.0], rel=1e-6)


def test_factors_are_uniform_around_one() -> None:
    factors = jitter_factors(
        np.array([[0.0, 0.5, 1.0]]), ColourJitter(brightness=0.4, contrast=0.2, saturation=0.3)
    )
    assert factors[0].tolist() == pytest.approx([0.6, 1.0, 1.3])


def test_lighting_moves_along_imagenets_colours_by_its_deviations() -> None:
    steps = light_steps(uniform(0, 0, np.arange(50_000), "lighting", 6), 0.1)
    # Variances along the axes are 0.1^2 times those of ImageNet's colours (AlexNet, Section 4.1), and the
    # coordinates are independent.
    along = steps @ np.linalg.inv(LIGHT_AXES).T
    assert np.abs(along.mean(axis=0) / along.std(axis=0)).max() < 0.02
    assert along.std(axis=0).tolist() == pytest.approx([0.02175, 0.00188, 0.00045], rel=0.02)
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.02
    beyond = (np.abs(along[:, 0]) > 1.96 * 0.02175).mean()
    assert beyond == pytest.approx(0.05, abs=0.005)


def test_the_axes_are_orthonormal() -> None:
    # The published numbers have four digits.
    assert np.abs(LIGHT_AXES.T @ LIGHT_AXES - np.eye(3)).max() < 2e-4
    # The first axis is brightness: all channels alike.
    assert LIGHT_AXES[:, 0].tolist() == pytest.approx([-1.0 / math.sqrt(3.0)] * 3, abs=0.01)
