import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.catalog.cards import find_card
from convatlas.data.crops import TestFit
from convatlas.data.transforms import Transform, card_transform, read_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(width: int = 300, height: int = 280) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_a_photo_is_fitted_as_test_images_are(interpolation: str, crop_pct: float) -> None:
    transform = Transform("photo", (3, 64, 64), MEAN, STD, interpolation, crop_pct)
    pixels = torch.from_numpy(np.array(photo())).permute(2, 0, 1)
    expected = transform.normalise(TestFit(64, crop_pct, interpolation)(pixels))
    assert torch.equal(transform(photo()), expected)


def test_the_numbers_are_those_of_torchvision() -> None:
    from torchvision.transforms import v2

    steps = [v2.Resize(64), v2.CenterCrop(56), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    image = photo(320, 256)  # 80x64 px exactly; where a side is no whole number, torchvision rounds down
    theirs = v2.Compose([*steps, v2.Normalize(MEAN, STD)])(image)
    ours = Transform("photo", (3, 56, 56), MEAN, STD)(image)
    # A level of a byte is 1 / 255 / 0.225 here; rounding may differ by one.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.0176)


def test_grey_networks_get_grey() -> None:
    x = Transform("photo", (1, 32, 32), (0.5,), (0.5,))(photo())
    assert x.shape == (1, 32, 32)


def test_a_record_comes_back() -> None:
    transform = card_transform(find_card("mobilenet_v2_100"))
    assert transform.input_size == (3, 224, 224)
    assert read_transform(transform.record()) == transform


@pytest.mark.parametrize("record", ['{"kind": "photo"}', "[1]", '{"unknown": 1}'])
def test_what_is_no_record(record: str) -> None:
    with pytest.raises(ValueError, match="not the record of a transform"):
        read_transform(record)
