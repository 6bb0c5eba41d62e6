import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as peer

from convatlas.data.crops import with_channels
from convatlas.data.transforms import Transform
from convatlas.evaluation.crops import Protocol, Views, many_crops, ten_crops, whole

IMAGENET = Transform("photo", (3, 224, 224), (0.5,) * 3, (0.2,) * 3)
SMALL = Transform("photo", (3, 32, 32), (0.5,) * 3, (0.2,) * 3, "bilinear", 1.0)


def noise_image(height: int, width: int, chans: int = 3) -> Tensor:
    """No two places alike, so that a wrong crop shows."""
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (chans, height, width), dtype=torch.uint8, generator=generator)


def test_ten_crops_are_torchvisions() -> None:
    image = noise_image(40, 40)
    ours = ten_crops(image, (32, 32), 40, "bilinear")
    theirs = peer.ten_crop(image, [32, 32])
    # Torchvision crops the mirror image: what is left there is the mirror image of what is right here.
    order = (0, 1, 2, 3, 4, 6, 5, 8, 7, 9)
    torch.testing.assert_close(ours, torch.stack([theirs[i] for i in order]), rtol=0, atol=0)


def test_ten_crops_lie_in_the_middle_square() -> None:
    image = noise_image(40, 60)
    ours = ten_crops(image, (32, 32), 40, "bilinear")
    torch.testing.assert_close(ours, ten_crops(image[:, :, 10:50], (32, 32), 40, "bilinear"))


@pytest.mark.parametrize("upright", [pytest.param(False, id="wide"), pytest.param(True, id="upright")])
def test_many_crops(upright: bool) -> None:
    image = noise_image(36, 61)
    crops = many_crops(image.transpose(1, 2) if upright else image, (28, 28), 36, "bilinear")
    if upright:
        crops = crops.transpose(2, 3)
    assert crops.shape == (36, 3, 28, 28)
    starts = (0, 12, 25)  # left, middle and right square of 36 px, in 61
    for number, start in enumerate(starts):
        square = image[:, :, start : start + 36]
        places = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
        if upright:
            places[1], places[2] = places[2], places[1]
        for crop, (top, left) in zip(crops[6 * number :], places, strict=False):
            torch.testing.assert_close(crop, square[:, top : top + 28, left : left + 28], rtol=0, atol=0)
        small = peer.resize(square, [28, 28], antialias=True)
        torch.testing.assert_close(crops[6 * number + 5].int(), small.int(), rtol=0, atol=1)
    torch.testing.assert_close(crops[18:], crops[:18].flip(2 if upright else 3), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "flip", "sizes"),
    [
        pytest.param("single", False, [(1, 32, 32)], id="single"),
        pytest.param("single", True, [(2, 32, 32)], id="single-flipped"),
        pytest.param("10crop", False, [(10, 32, 32)], id="10crop"),
        pytest.param("144crop", False, [(36, 32, 32)] * 4, id="144crop"),
        pytest.param("dense", False, [(1, 32, 48)], id="dense"),
        pytest.param("multiscale", True, [(2, 32, 48), (2, 36, 54)], id="multiscale"),
    ],
)
def test_views_of_a_protocol(name: str, flip: bool, sizes: list[tuple[int, int, int]]) -> None:
    protocol = Protocol(name, flip=flip)  # type: ignore[arg-type]
    views = Views(protocol, SMALL)(noise_image(40, 60))
    assert [(len(scale), *scale.shape[2:]) for scale in views] == sizes
    assert protocol.count_views(SMALL) == sum(count for count, _, _ in sizes)
    assert all(scale.dtype == torch.uint8 for scale in views)
    if flip:
        torch.testing.assert_close(views[0][1], views[0][0].flip(-1))


@pytest.mark.parametrize(
    ("name", "scales"),
    [
        pytest.param("single", (256,), id="single"),
        pytest.param("10crop", (256,), id="AlexNet, Section 2"),
        pytest.param("144crop", (256, 288, 320, 352), id="GoogLeNet, Section 7"),
        pytest.param("dense", (256,), id="VGG, Section 3.2"),
        pytest.param("multiscale", (224, 256, 288), id="VGG, Section 4.2"),
    ],
)
def test_scales_of_the_papers(name: str, scales: tuple[int, ...]) -> None:
    assert Protocol(name).scales_for(IMAGENET) == scales  # type: ignore[arg-type]


def test_a_single_view_is_what_predict_sees() -> None:
    (views,) = Views(Protocol(), IMAGENET)(noise_image(300, 400))
    torch.testing.assert_close(views[0], IMAGENET.pixels(noise_image(300, 400)))


def test_a_single_view_at_another_scale() -> None:
    (views,) = Views(Protocol(scales=(48,)), SMALL)(noise_image(48, 48))
    torch.testing.assert_close(views[0], noise_image(48, 48)[:, 8:40, 8:40])


def test_a_whole_image_keeps_its_shape_unless_it_is_a_strip() -> None:
    assert whole(noise_image(50, 100), 32, "bilinear").shape == (3, 32, 64)
    assert whole(noise_image(2, 5000), 32, "bilinear").shape == (3, 32, 512)


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (3, 1), (3, 3)])
def test_channels(given: int, wanted: int) -> None:
    made = with_channels(torch.full((given, 4, 5), 77, dtype=torch.uint8), wanted)
    assert made.shape == (wanted, 4, 5)
    assert set(made.flatten().tolist()) == {77}


def test_digits_are_cut_out_of_images_only() -> None:
    transform = Transform("digit", (1, 32, 32), (0.1,), (0.3,), "bilinear", 1.0)
    image = torch.full((3, 60, 60), 255, dtype=torch.uint8)
    image[:, 20:40, 28:32] = 0
    (cut,), (ready,) = Views(Protocol(), transform)(image), Views(Protocol(), transform, is_ready=True)(image)
    assert cut[0, 0, 0, 0] == 0  # ink is white there
    assert ready[0, 0, 0, 0] == 255
    with pytest.raises(ValueError, match="all of one colour"):
        Views(Protocol(), transform)(torch.zeros(3, 50, 50, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"name": "12crop"}, "unknown protocol '12crop'; nearest: .*10crop", id="name"),
        pytest.param({"average": "votes"}, "`average`='votes'; expected 'probabilities' or", id="average"),
        pytest.param({"scales": (0,)}, r"`scales`=\[0\]; expected px", id="zero"),
        pytest.param({"scales": ()}, r"`scales`=\[\]; expected px", id="none"),
        pytest.param({"name": "dense", "scales": (256, 384)}, "'dense' has one scale; several", id="several"),
    ],
)
def test_impossible_protocols(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**options)  # type: ignore[arg-type]


def test_a_scale_below_the_input() -> None:
    with pytest.raises(ValueError, match=r"`scales`=\[200\]: 200 px are less than .* expected 224 or more"):
        Protocol("10crop", scales=(200,)).scales_for(IMAGENET)
