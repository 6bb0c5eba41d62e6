import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convatlas.data.augment import Affine, Erase, PadCrop
from convatlas.data.counter_random import uniform
from convatlas.data.geometric import cut_out, erase, fitting_boxes, random_affine, random_crop, random_flip

STILL = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def numbered(height: int, width: int) -> torch.Tensor:
    """An image whose px all differ: (1, 1, height, width)."""
    return (torch.arange(height * width) + 1).to(torch.uint8).view(1, 1, height, width)


@pytest.mark.parametrize(
    ("mode", "draws", "expected"),
    [
        # 1 2 3     top left: one row and one column of the padding come in
        # 4 5 6     bottom right: the same below and on the right
        pytest.param("zeros", (0.0, 0.0), [[0, 0, 0], [0, 1, 2], [0, 4, 5]], id="top-left"),
        pytest.param("zeros", (0.5, 0.5), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], id="middle"),
        pytest.param("zeros", (0.99, 0.99), [[5, 6, 0], [8, 9, 0], [0, 0, 0]], id="bottom-right"),
        pytest.param("zeros", (0.0, 0.99), [[0, 0, 0], [2, 3, 0], [5, 6, 0]], id="top-right"),
        pytest.param("reflect", (0.0, 0.0), [[5, 4, 5], [2, 1, 2], [5, 4, 5]], id="mirrored"),
        pytest.param("reflect", (0.99, 0.99), [[5, 6, 5], [8, 9, 8], [5, 6, 5]], id="mirrored-end"),
    ],
)
def test_crop(mode: str, draws: tuple[float, float], expected: list[list[int]]) -> None:
    out = random_crop(numbered(3, 3), np.array([draws]), PadCrop(pad=1, mode=mode))
    assert out[0, 0].tolist() == expected


def test_each_of_the_places_of_a_crop_is_as_likely() -> None:
    draws = uniform(0, 0, np.arange(20_000), "crop", 2)
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 2] = 1
    out = random_crop(image.expand(20_000, -1, -1, -1), draws, PadCrop(pad=2))
    counts = out.sum(dim=0)[0].double()
    assert ((counts - 800.0) ** 2 / 800.0).sum() < 51.2  # 99.9 % quantile of 24 degrees of freedom


def test_padding_by_mirroring_is_torchs() -> None:
    image = numbered(7, 5).float()
    for draws, rows, columns in (((0.0, 0.0), 0, 0), ((0.99, 0.3), 8, 2)):
        out = random_crop(image, np.array([draws]), PadCrop(pad=4, mode="reflect"))
        expected = F.pad(image, (4, 4, 4, 4), mode="reflect")[:, :, rows : rows + 7, columns : columns + 5]
        assert torch.equal(out, expected)


def test_flip_mirrors_left_to_right_those_below_the_rate() -> None:
    images = numbered(2, 3).repeat(3, 1, 1, 1)
    out = random_flip(images, np.array([[0.29], [0.3], [0.9]]), 0.3)
    assert out[0, 0].tolist() == [[3, 2, 1], [6, 5, 4]]
    assert torch.equal(out[1:], images[1:])


def test_affine_without_room_to_move_is_the_identity() -> None:
    images = torch.rand(4, 1, 32, 30) * 255.0
    draws = uniform(0, 0, np.arange(4), "affine", 5)
    torch.testing.assert_close(random_affine(images, draws, Affine(**STILL)), images, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "draws", "matrix"),
    [
        pytest.param({"degrees": 30.0}, (1.0, 0.5, 0.5, 0.5, 0.5), "turn", id="turn"),
        pytest.param({"scale": math.log(2.0)}, (0.5, 1.0, 0.5, 0.5, 0.5), "double", id="scale"),
        pytest.param({"shear": 0.5}, (0.5, 0.5, 1.0, 0.5, 0.5), "slant", id="shear"),
        pytest.param({"shift": 3.0}, (0.5, 0.5, 0.5, 1.0, 0.0), "move", id="shift"),
    ],
)
def test_affine_is_torchs_with_the_drawn_matrix(
    settings: dict[str, float], draws: tuple[float, ...], matrix: str
) -> None:
    images = torch.rand(1, 2, 24, 24) * 255.0
    cos, sin = math.cos(math.radians(30.0)), math.sin(math.radians(30.0))
    theta = {
        "turn": [[cos, -sin, 0.0], [sin, cos, 0.0]],
        "double": [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]],
        "slant": [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0]],
        "move": [[1.0, 0.0, 0.25], [0.0, 1.0, -0.25]],  # 3 of 24 px are a quarter of half the image
    }[matrix]
    grid = F.affine_grid(torch.tensor([theta]), [1, 2, 24, 24], align_corners=False)
    expected = F.grid_sample(images, grid, align_corners=False)
    out = random_affine(images, np.array([draws]), Affine(**(STILL | settings)))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("knob", STILL)
def test_each_affine_knob_moves_each_sample_by_its_own_draw(knob: str) -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 4:20, 6:9] = 1.0
    how = Affine(**(STILL | {knob: 20.0 if knob == "degrees" else 0.5}))
    out = random_affine(image.repeat(8, 1, 1, 1), uniform(1, 2, np.arange(8), "affine", 5), how)
    assert len(out.flatten(1).unique(dim=0)) == 8


@pytest.mark.parametrize(
    ("draws", "rows", "columns"),
    [
        pytest.param((0.5, 0.5), range(2, 6), range(3, 7), id="inside"),
        pytest.param((0.0, 0.99), range(0, 2), range(7, 10), id="cut-off-at-the-corner"),
    ],
)
def test_cutout_is_a_square_around_a_px(draws: tuple[float, float], rows: range, columns: range) -> None:
    images = torch.ones(1, 2, 8, 10)
    cut_out(images, np.array([draws]), 4)
    expected = torch.ones(8, 10)
    expected[rows.start : rows.stop, columns.start : columns.stop] = 0.0
    assert torch.equal(images[0, 0], expected)
    assert torch.equal(images[0, 1], expected)


def test_erased_rectangles_have_the_rate_area_and_shape_that_were_asked_for() -> None:
    count, side = 4000, 64
    images = torch.ones(count, 1, side, side)
    how = Erase(rate=0.3, area=(0.1, 0.2), ratio=(0.5, 2.0))
    erase(images, lambda purpose, n: uniform(0, 0, np.arange(count), purpose, n), how)
    gone = images[:, 0] == 0.0
    hit = gone.flatten(1).any(dim=1)
    assert hit.float().mean().item() == pytest.approx(0.3, abs=3.3 * math.sqrt(0.3 * 0.7 / count))
    heights, widths = gone.any(dim=2).sum(dim=1)[hit], gone.any(dim=1).sum(dim=1)[hit]
    assert torch.equal(gone.sum(dim=(1, 2))[hit], heights * widths)  # rectangles, without holes
    areas, shapes = (heights * widths) / side**2, heights / widths
    assert 0.095 < areas.min() < 0.11
    assert 0.19 < areas.max() < 0.21
    assert areas.mean().item() == pytest.approx(0.15, abs=0.004)
    assert shapes.log().mean().item() == pytest.approx(0.0, abs=0.05)
    assert 0.48 < shapes.min() < 0.55
    tops = gone.any(dim=2).int().argmax(dim=1)[hit]
    spread = tops / (side - heights).clamp(min=1)
    assert spread.mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_first_box_that_fits_is_taken() -> None:
    # An area of half of 10x40 px is 200 px. Shape 4 makes 28x7 and shape 1 makes 14x14, both too high; shape
    # 0.25 makes 7x28, which fits.
    draws = np.array([[0.5, 0.5, 0.5, 1.0, 0.5, 0.0]])
    heights, widths, found = fitting_boxes(draws, (0.25, 0.75), (0.25, 4.0), 10, 40)
    assert (heights.tolist(), widths.tolist(), found.tolist()) == ([7], [28], [True])
    _, _, found = fitting_boxes(draws[:, [0, 1, 3, 4]], (0.25, 0.75), (0.25, 4.0), 10, 40)
    assert found.tolist() == [False]
