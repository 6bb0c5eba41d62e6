from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

import convatlas
from convatlas.data.sources import load_source
from convatlas.predict.outputs import Prediction, Skipped

# Strokes on a 100x100 field, drawn by hand for this test: polylines, one list for each stroke.
# fmt: off
STROKES = {
    0: [[(50, 12), (30, 25), (24, 50), (30, 75), (50, 88), (70, 75), (76, 50), (70, 25), (50, 12)]],
    1: [[(40, 28), (54, 12), (54, 88)]],
    2: [[(28, 28), (38, 14), (60, 12), (72, 26), (68, 42), (28, 86), (76, 86)]],
    3: [[(28, 16), (58, 12), (70, 26), (60, 42), (44, 47), (66, 54), (72, 72), (56, 87), (28, 82)]],
    4: [[(48, 12), (24, 60), (76, 60)], [(62, 36), (62, 90)]],
    5: [[(72, 13), (34, 13), (30, 45), (56, 42), (72, 58), (68, 78), (48, 88), (28, 80)]],
    6: [[(64, 12), (40, 30), (28, 58), (34, 80), (54, 88), (70, 74), (64, 56), (46, 52), (32, 64)]],
    7: [[(24, 14), (76, 14), (46, 88)], [(38, 50), (66, 50)]],
    8: [[(50, 48), (30, 34), (36, 16), (50, 11), (66, 18), (68, 34), (50, 48)],
        [(50, 48), (28, 66), (36, 86), (52, 89), (70, 78), (68, 62), (50, 48)]],
    9: [[(70, 34), (54, 48), (34, 42), (30, 24), (46, 11), (66, 16), (70, 34), (66, 62), (56, 88)]],
}
# fmt: on


def draw(digit: int, ink: int = 0, paper: int = 255, width: int = 9, scale: int = 2) -> Image.Image:
    image = Image.new("L", (160 * scale, 160 * scale), paper)
    pen = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        points = [((x + 30) * scale, (y + 30) * scale) for x, y in stroke]
        pen.line(points, fill=ink, width=width * scale, joint="curve")
    return image.filter(ImageFilter.GaussianBlur(scale))


@pytest.mark.parametrize(
    ("ink", "paper", "width"),
    [
        pytest.param(0, 255, 9, id="dark-on-white"),
        pytest.param(255, 0, 9, id="white-on-black"),
        pytest.param(60, 190, 12, id="pencil"),
        pytest.param(0, 255, 6, id="thin-pen"),
    ],
)
def test_reads_digits_drawn_by_hand(
    lenet_run: Path, tmp_path: Path, ink: int, paper: int, width: int
) -> None:
    paths = [tmp_path / f"{digit}.png" for digit in STROKES]
    for digit, path in enumerate(paths):
        draw(digit, ink, paper, width).save(path)
    predictions = convatlas.load(lenet_run).predict(paths)
    read = [prediction.top[0][0] if isinstance(prediction, Prediction) else "-" for prediction in predictions]
    right = sum(results == str(digit) for digit, results in enumerate(read))
    assert right >= 9, read


def test_probabilities_are_those_of_the_network(lenet_run: Path, tmp_path: Path) -> None:
    net = convatlas.load(lenet_run)
    path = tmp_path / "a.png"
    draw(3).save(path)
    (prediction,) = net.predict(path, top=10)
    assert isinstance(prediction, Prediction)
    shares = [share for _, share in prediction.top]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert shares == sorted(shares, reverse=True)
    with torch.no_grad():
        logits = net(net.transform(draw(3))[None])[0]
    assert prediction.top[0] == (
        net.class_names[logits.argmax()],
        pytest.approx(logits.softmax(0).max().item(), abs=1e-5),
    )


def test_a_bad_file_does_not_keep_the_others_waiting(lenet_run: Path, tmp_path: Path) -> None:
    good, bad, blank = tmp_path / "7.png", tmp_path / "bad.png", tmp_path / "blank.png"
    draw(7).save(good)
    bad.write_text("nothing")
    Image.new("L", (40, 40), 200).save(blank)
    first, second, third, fourth = convatlas.load(lenet_run).predict(
        [bad, good, blank, tmp_path / "gone.png"]
    )
    assert isinstance(second, Prediction)
    assert isinstance(first, Skipped)
    assert "bad.png: is no image" in first.reason
    assert isinstance(third, Skipped)
    assert third.reason == f"{blank}: all of one colour: there is no digit on it"
    assert isinstance(fourth, Skipped)
    assert "no such file" in fourth.reason


def test_loaded_networks_are_ready(lenet_run: Path) -> None:
    net = convatlas.load(str(lenet_run))
    assert not net.training
    assert net.class_names == tuple("0123456789")
    source = load_source("digits")
    torch.testing.assert_close(
        net.transform.normalise(source.test.images).amax(), torch.tensor(1.175), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("top", [0, 11])
def test_top_out_of_range(lenet_run: Path, top: int) -> None:
    with pytest.raises(ValueError, match=rf"`top`={top}; expected 1 to 10, the number of classes"):
        convatlas.load(lenet_run).predict([], top=top)


def test_noise_is_predicted_too(lenet_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 300), dtype=np.uint8)).save(path)
    (prediction,) = convatlas.load(lenet_run).predict(path)
    assert isinstance(prediction, Prediction)
