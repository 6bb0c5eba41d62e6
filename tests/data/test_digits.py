import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.digits import digit_from_image, enlarge, read_digits
from convatlas.data.sources import load_source


def test_the_data_set_is_the_published_one() -> None:
    images, labels = read_digits()
    assert images.shape == (1797, 1, 32, 32)
    assert images.dtype == torch.uint8
    # UCI's description of the test split: class counts of optdigits.tes.
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.amax().item() == 255
    assert (images[:, :, [0, 1, 30, 31]] == 0).all()


def test_equal_to_what_scikit_learn_reads() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = read_digits()
    assert torch.equal(images, enlarge(torch.from_numpy(bunch.images / 16.0).float()))
    assert labels.tolist() == bunch.target.tolist()


def test_the_split_is_fixed_stratified_and_disjoint() -> None:
    first, second = load_source("digits"), load_source("digits")
    assert first.fingerprint == second.fingerprint
    assert (len(first.train), len(first.test)) == (1438, 359)
    shares = first.test.labels.bincount() / (first.test.labels.bincount() + first.train.labels.bincount())
    assert ((shares - 0.2).abs() < 0.005).all()
    rows = torch.cat([first.train.images, first.test.images]).flatten(1)
    assert sorted(map(bytes, rows.numpy())) == sorted(map(bytes, read_digits()[0].flatten(1).numpy()))


def test_enlarging_keeps_the_ink_in_place() -> None:
    grid = torch.zeros(1, 8, 8)
    grid[0, 2, 5] = 1.0
    image = enlarge(grid)[0, 0].float()
    rows, cols = (image.sum(dim=1), image.sum(dim=0))
    centre = [(weights * torch.arange(32.0)).sum().item() / weights.sum().item() for weights in (rows, cols)]
    # Cell i covers px 2 + 3.5 i to 2 + 3.5 (i + 1); its middle, counted in px centres, lies half a px lower.
    assert centre == pytest.approx([2 + 3.5 * 2.5 - 0.5, 2 + 3.5 * 5.5 - 0.5], abs=0.05)


def draw_seven(ink: int, paper: int, size: int = 120, at: tuple[int, int] = (30, 20)) -> Image.Image:
    pixels = np.full((size, size), paper, dtype=np.uint8)
    top, left = at
    pixels[top : top + 8, left : left + 40] = ink
    for i in range(50):
        pixels[top + 8 + i, left + 32 - i // 2 : left + 40 - i // 2] = ink
    return Image.fromarray(pixels)


def test_polarity_position_and_contrast_do_not_matter() -> None:
    expected = digit_from_image(draw_seven(255, 0))
    for other in (draw_seven(0, 255), draw_seven(40, 140), draw_seven(0, 255, size=200, at=(90, 130))):
        assert (digit_from_image(other).int() - expected.int()).abs().max() <= 2
    assert expected.shape == (1, 32, 32)
    assert expected.dtype == torch.uint8


def test_size_of_the_image_hardly_matters() -> None:
    small = draw_seven(0, 255)
    large = small.resize((600, 600), Image.Resampling.NEAREST)
    difference = digit_from_image(small).float() - digit_from_image(large).float()
    assert difference.abs().mean() < 4.0


def test_a_training_digit_comes_back_much_as_it_was() -> None:
    images, _ = read_digits()
    kept = [
        torch.nn.functional.cosine_similarity(
            digit_from_image(Image.fromarray(image[0].numpy())).float().flatten(),
            image.float().flatten(),
            dim=0,
        ).item()
        for image in images[:50]
    ]
    assert np.median(kept) > 0.9


def test_a_blank_image_is_refused() -> None:
    with pytest.raises(ValueError, match="all of one colour"):
        digit_from_image(Image.new("L", (50, 50), 255))
