import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convatlas.data.augment import Augment, Policy, ResizedCrop, ScaleJitter
from convatlas.data.crops import TestFit, TrainFit
from convatlas.data.resize import central_crop, resize


def ramp(height: int, width: int) -> Tensor:
    """Red grows to the right by 1 a px, green downwards, so that a crop shows where it was: (3, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)


def noise(height: int, width: int, chans: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (chans, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 31), (90, 77)], ids=["smaller", "larger"])
@pytest.mark.parametrize("chans", [1, 3])
def test_resizing_is_pillows(interpolation: str, size: tuple[int, int], chans: int) -> None:
    pixels = noise(50, 60, chans)
    ours = resize(pixels, size, interpolation).permute(1, 2, 0).squeeze(2).int().numpy()
    pillow = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    theirs = np.asarray(pillow.resize(size[::-1], Image.Resampling[interpolation.upper()])).astype(int)
    # Weights are rounded to 16 bits; a bicubic sum of pure noise may be two levels off.
    assert np.abs(ours - theirs).max() <= (1 if interpolation == "bilinear" else 2)
    assert np.abs(ours - theirs).mean() < 0.1


def test_resizing_by_area_is_the_mean_of_blocks() -> None:
    pixels = noise(8, 12)
    blocks = pixels.double().unflatten(2, (6, 2)).unflatten(1, (4, 2)).mean(dim=(2, 4))
    assert torch.equal(resize(pixels, (4, 6), "area"), blocks.round().to(torch.uint8))


def test_resizing_by_the_nearest() -> None:
    pixels = noise(4, 6)
    expected = pixels.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.equal(resize(pixels, (8, 12), "nearest"), expected)


def test_an_unknown_interpolation() -> None:
    with pytest.raises(ValueError, match=r"`interpolation`='cubic'; allowed are 'bilinear', 'bicubic'"):
        resize(noise(4, 4), (2, 2), "cubic")


@pytest.mark.parametrize(("height", "width"), [(300, 400), (256, 256), (500, 260), (40, 50)])
def test_the_central_crop_is_that_of_pillow(height: int, width: int) -> None:
    pixels = noise(height, width)
    ours = TestFit(224)(pixels).permute(1, 2, 0).int().numpy()
    factor = 256 / min(height, width)  # 224 / 0.875
    columns, rows = round(width * factor), round(height * factor)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(
        (columns, rows), Image.Resampling.BILINEAR
    )
    left, top = (columns - 224) // 2, (rows - 224) // 2
    theirs = np.asarray(image.crop((left, top, left + 224, top + 224))).astype(int)
    assert ours.shape == (224, 224, 3)
    assert np.abs(ours - theirs).max() <= 1


def test_a_test_fit_can_be_asked_for_another_size() -> None:
    pixels = noise(60, 50)
    assert torch.equal(TestFit(32, 1.0, "bicubic")(pixels, 7, 40), TestFit(40, 1.0, "bicubic")(pixels))


def test_a_thin_image_still_fills_the_crop() -> None:
    assert central_crop(noise(1, 300), (32, 32), 1.0, "bilinear").shape == (3, 32, 32)
    assert TrainFit(Augment(resized_crop=ResizedCrop()), 0, 0)(noise(1, 300), 0, 32).shape == (3, 32, 32)


FITS = {
    "resized_crop": Augment(resized_crop=ResizedCrop()),
    "random-interpolation": Augment(resized_crop=ResizedCrop(interpolation="random")),
    "scale_jitter": Augment(scale_jitter=ScaleJitter()),
    "rand_augment": Augment(policy=Policy()),
    "trivial_augment": Augment(policy=Policy(kind="trivial_augment")),
}


@pytest.mark.parametrize("kind", FITS)
def test_a_crop_is_a_function_of_seed_epoch_and_sample(kind: str) -> None:
    pixels = noise(90, 70)
    fit = TrainFit(FITS[kind], seed=1, epoch=2)
    expected = [fit(pixels, sample, 48) for sample in range(8)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = pickle.loads(pickle.dumps(fit))
    for sample in (5, 0, 7):
        assert torch.equal(again(pixels, sample, 48), expected[sample])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(found.shape == (3, 48, 48) and found.dtype == torch.uint8 for found in expected)
    assert len({found.numpy().tobytes() for found in expected}) >= 6
    for other in (TrainFit(FITS[kind], seed=2, epoch=2), TrainFit(FITS[kind], seed=1, epoch=3)):
        found = [other(pixels, sample, 48) for sample in range(8)]
        assert any(not torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_random_crops_training_images_are_fitted_as_test_images() -> None:
    pixels = noise(90, 70)
    fit = TrainFit(Augment(flip=0.5), 0, 0, crop_pct=0.9, interpolation="bicubic")
    assert torch.equal(fit(pixels, 3, 48), TestFit(48, 0.9, "bicubic")(pixels))
    assert torch.equal(fit(pixels, 3, None), pixels)


def test_resized_crops_have_the_area_and_shape_that_were_asked_for() -> None:
    pixels = ramp(200, 250)
    fit = TrainFit(Augment(resized_crop=ResizedCrop(scale=(0.2, 0.5), ratio=(0.5, 2.0))), 0, 0)
    crops = torch.stack([fit(pixels, sample, 32) for sample in range(1000)]).double()
    # Over 32 px, red spans the crop's width less a px of the result.
    widths, heights = ((crops[:, c].amax((1, 2)) - crops[:, c].amin((1, 2))) * 32 / 31 for c in (0, 1))
    shares, ratios = widths * heights / (200 * 250), widths / heights
    assert 0.17 < shares.min() < 0.23
    assert 0.47 < shares.max() < 0.53
    assert shares.mean().item() == pytest.approx(0.35, abs=0.02)
    assert 0.45 < ratios.min() < 0.56
    assert 1.8 < ratios.max() < 2.2
    lefts = crops[:, 0].amin((1, 2)) / (250.0 - widths)
    assert lefts.mean().item() == pytest.approx(0.5, abs=0.04)
    assert lefts.min() < 0.05
    assert lefts.max() > 0.95


@pytest.mark.parametrize(("low", "high", "px"), [(256, 512, 224), (256, 256, 224), (256, 480, 112)])
def test_scale_jitter_draws_the_short_side(low: int, high: int, px: int) -> None:
    pixels = ramp(120, 240)
    fit = TrainFit(Augment(scale_jitter=ScaleJitter(low=low, high=high)), 0, 0)
    crops = torch.stack([fit(pixels, sample, px) for sample in range(60)]).double()
    assert crops.shape == (60, 3, px, px)
    # At a short side of s px for a nominal 224, a crop shows 224 / s of the image's 120 px.
    spans = crops[:, 1].amax((1, 2)) - crops[:, 1].amin((1, 2))
    sides = 120 * 224 / (spans + 120 / low)
    assert sides.min() > low * 0.97
    assert sides.max() < high * 1.04
    if high > low:
        assert sides.min() < low + 0.2 * (high - low)
        assert sides.max() > high - 0.2 * (high - low)
    assert crops[:, 0].amin((1, 2)).unique().numel() > 20


def test_random_interpolation_draws_all_four() -> None:
    pixels = noise(12, 12)
    whole = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), interpolation="random")
    fit = TrainFit(Augment(resized_crop=whole), 0, 0)
    found = [fit(pixels, sample, 7) for sample in range(200)]
    for name in ("nearest", "bilinear", "bicubic", "area"):
        expected = resize(pixels, (7, 7), name)
        assert 25 < sum(torch.equal(one, expected) for one in found) < 80, name
