import subprocess
import sys
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from convatlas.data.apply import augment_batch
from convatlas.data.augment import (
    Affine,
    Augment,
    ColourJitter,
    Erase,
    PadCrop,
    Policy,
    ResizedCrop,
    ScaleJitter,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

PARTS = {
    "nothing": Augment(),
    "pad_crop": Augment(pad_crop=PadCrop(pad=3)),
    "reflect": Augment(pad_crop=PadCrop(pad=3, mode="reflect")),
    "flip": Augment(flip=0.5),
    "affine": Augment(affine=Affine()),
    "colour_jitter": Augment(colour_jitter=ColourJitter()),
    "lighting": Augment(lighting=0.1),
    "erase": Augment(erase=Erase(rate=0.9)),
    "cutout": Augment(cutout=6),
    "all": Augment(
        pad_crop=PadCrop(),
        flip=0.5,
        affine=Affine(),
        colour_jitter=ColourJitter(),
        lighting=0.1,
        erase=Erase(),
        cutout=5,
    ),
}


def noise_images(batch: int = 12, chans: int = 3, height: int = 20, width: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, chans, height, width), dtype=torch.uint8, generator=generator)


def run(images: Tensor, augment: Augment, samples: np.ndarray, seed: int = 3, epoch: int = 2) -> Tensor:
    chans = images.shape[1]
    return augment_batch(
        images, samples, augment=augment, seed=seed, epoch=epoch, mean=MEAN[:chans], std=STD[:chans]
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1] * 12, id="one-by-one"),
        pytest.param([5, 7], id="5+7"),
        pytest.param([11, 1], id="11+1"),
    ],
)
def test_a_sample_is_the_same_to_the_bit_in_any_batch(part: str, sizes: list[int]) -> None:
    images, samples = noise_images(), np.arange(40, 52)
    whole = run(images, PARTS[part], samples)
    cuts = pairwise([0, *accumulate(sizes)])
    parts = [run(images[a:b], PARTS[part], samples[a:b]) for a, b in cuts]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("part", PARTS)
def test_the_place_in_the_batch_makes_no_difference(part: str) -> None:
    images, samples = noise_images(), np.arange(40, 52)
    order = np.random.default_rng(0).permutation(12)
    turned = run(images[torch.from_numpy(order)], PARTS[part], samples[order])
    assert torch.equal(turned, run(images, PARTS[part], samples)[torch.from_numpy(order)])


@pytest.mark.parametrize("part", [part for part in PARTS if part != "nothing"])
def test_seed_epoch_and_sample_each_make_a_difference(part: str) -> None:
    images = noise_images(1).expand(12, -1, -1, -1)
    first = run(images, PARTS[part], np.arange(12))
    assert len(first.flatten(1).unique(dim=0)) > 1
    assert not torch.equal(first, run(images, PARTS[part], np.arange(12), seed=4))
    assert not torch.equal(first, run(images, PARTS[part], np.arange(12), epoch=3))
    assert not torch.equal(first, run(images, PARTS[part], np.arange(12, 24)))


@pytest.mark.parametrize(
    ("part", "chans"),
    [
        (part, chans)
        for part, augment in PARTS.items()
        for chans in (1, 3)
        if chans == 3 or not augment.lighting
    ],
)
def test_shape_type_and_layout(part: str, chans: int) -> None:
    images = noise_images(chans=chans)
    before = images.clone()
    x = run(images, PARTS[part], np.arange(12))
    assert x.shape == images.shape
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_without_augmentation_images_are_normalised() -> None:
    images = noise_images()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
    expected = (images.double() / 255.0 - mean) / std
    torch.testing.assert_close(run(images, Augment(), np.arange(12)).double(), expected, rtol=1e-6, atol=1e-6)


def test_covered_pixels_have_the_mean_colour() -> None:
    x = run(torch.full((8, 3, 16, 16), 255, dtype=torch.uint8), Augment(cutout=4), np.arange(8))
    assert x.amin().item() == 0.0
    assert (x == 0.0).sum() <= 8 * 3 * 16


def test_what_needs_single_images_or_neighbours() -> None:
    assert not Augment(flip=0.5).per_image
    assert Augment(resized_crop=ResizedCrop()).per_image
    assert Augment(scale_jitter=ScaleJitter()).per_image
    assert Augment(policy=Policy()).per_image
    assert not Augment(flip=0.5).mixes
    assert Augment(mixup=0.2).mixes
    assert Augment(cutmix=1.0).mixes


def test_settings_can_be_read_without_torch() -> None:
    code = "import sys, convatlas.data.augment; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: PadCrop(pad=0), r"`pad`=0; expected a whole number of px of at least 1", id="pad"
        ),
        pytest.param(
            lambda: PadCrop(mode="edge"), r"`mode`='edge'; allowed are 'zeros', 'reflect'", id="mode"
        ),
        pytest.param(
            lambda: Affine(degrees=-1.0), r"`degrees`=-1.0; expected a number of at least 0", id="affine"
        ),
        pytest.param(
            lambda: ColourJitter(contrast=1.5), r"`contrast`=1.5; expected a number of 0 to 1", id="colour"
        ),
        pytest.param(
            lambda: Erase(area=(0.4, 0.1)),
            r"`area`=\(0.4, 0.1\); expected two numbers, 0 < low <= high <= 1",
            id="area",
        ),
        pytest.param(
            lambda: Erase(ratio=(0.0, 1.0)),
            r"`ratio`=\(0.0, 1.0\); expected two numbers, 0 < low <= high",
            id="ratio",
        ),
        pytest.param(lambda: Erase(rate=True), r"`rate`=True; expected a number of 0 to 1", id="bool"),
        pytest.param(
            lambda: ResizedCrop(scale=(0.5, 1.5)),
            r"`scale`=\(0.5, 1.5\); expected two numbers.* <= 1$",
            id="scale",
        ),
        pytest.param(
            lambda: ResizedCrop(interpolation="cubic"),
            r"`interpolation`='cubic'; allowed are 'bilinear', 'bicubic', 'random'",
            id="interpolation",
        ),
        pytest.param(
            lambda: ScaleJitter(low=300, high=256),
            r"`low`=300, `high`=256; expected whole numbers of px, 224 <= low <= high",
            id="jitter",
        ),
        pytest.param(
            lambda: Policy(kind="auto"),
            r"`kind`='auto'; allowed are 'rand_augment', 'trivial_augment'",
            id="policy",
        ),
        pytest.param(
            lambda: Policy(num_ops=0), r"`num_ops`=0; expected a whole number of at least 1", id="ops"
        ),
        pytest.param(
            lambda: Policy(magnitude=31), r"`magnitude`=31; expected a whole number of 0 to 30", id="31"
        ),
        pytest.param(lambda: Augment(flip=1.1), r"`flip`=1.1; expected a number of 0 to 1", id="flip"),
        pytest.param(lambda: Augment(mixup=2.0), r"`mixup`=2.0; expected a number of 0 to 1", id="mixup"),
        pytest.param(
            lambda: Augment(lighting=-0.1), r"`lighting`=-0.1; expected a number of at least 0", id="light"
        ),
        pytest.param(
            lambda: Augment(cutout=-2), r"`cutout`=-2; expected a whole number of px, or 0", id="cutout"
        ),
        pytest.param(
            lambda: Augment(resized_crop=ResizedCrop(), scale_jitter=ScaleJitter()),
            r"`resized_crop` and `scale_jitter` are two ways to crop; set one to None",
            id="two-crops",
        ),
        pytest.param(
            lambda: run(noise_images(height=4), Augment(pad_crop=PadCrop(mode="reflect")), np.arange(12)),
            r"`pad`=4; images of 4x17 px can be mirrored by 3 at most",
            id="reflect",
        ),
        pytest.param(
            lambda: run(noise_images(chans=1), Augment(lighting=0.1), np.arange(12)),
            r"`lighting`=0.1: works on images of 3 channels; these have 1: set it to 0 \(--set",
            id="grey-light",
        ),
        pytest.param(
            lambda: run(noise_images(chans=2), Augment(colour_jitter=ColourJitter()), np.arange(12)),
            r"`colour_jitter`: works on images of 1 or 3 channels; these have 2",
            id="two-channels",
        ),
    ],
)
def test_bad_values(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
