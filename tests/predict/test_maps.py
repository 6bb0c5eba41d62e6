"""Feature maps as a grid, and the files of many figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convatlas
from convatlas.predict.maps import FeatureMaps, map_each
from convatlas.predict.out_files import OutFiles
from convatlas.predict.outputs import Skipped
from convatlas.predict.predictor import Predictor
from made_figures import faults, texts
from made_images import NAMES, TRANSFORM, pixels, save_images, small_network


def test_units_are_ordered_by_their_strength() -> None:
    net = small_network()
    (found,) = map_each(Predictor(net), pixels(0), stage=0)
    assert isinstance(found, FeatureMaps)
    x = TRANSFORM.normalise(torch.from_numpy(pixels(0)).permute(2, 0, 1)[None])
    with torch.no_grad():
        wanted = net.forward_stages(x)[0][0]
    torch.testing.assert_close(found.maps, wanted)
    strength = [float(wanted[unit].square().mean()) for unit in found.order]
    assert strength == sorted(strength, reverse=True) and len(set(found.order)) == 12


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize(("name", "stage", "units"), [("convnet_cs231n", -1, 5), ("mobilenet_v2_035", 1, 32)])
def test_the_figure(name: str, stage: int, units: int, theme: str) -> None:
    torch.manual_seed(0)
    net = convatlas.create_model(name, num_classes=10).eval()
    net.transform, net.class_names = TRANSFORM, NAMES
    (found,) = map_each(Predictor(net), pixels(1, 40, 60), stage=stage)
    assert isinstance(found, FeatureMaps)
    figure = found.figure(units=units, theme=theme)
    assert faults(figure) == []
    shown = min(units, len(found.maps))
    labels = [text for text in texts(figure) if text.partition(" · ")[0].isdigit()]
    assert [int(label.partition(" · ")[0]) for label in labels] == list(found.order[:shown])
    # The most of each map stands below it; linear bottlenecks have values below 0, shown by their size.
    first = found.maps[found.order[0]]
    assert float(labels[0].partition(" · ")[2]) == pytest.approx(float(first.abs().max()), rel=0.006)
    assert ("orange below 0" in figure.svg) == bool((found.maps < 0).any())


def test_what_has_no_maps() -> None:
    with pytest.raises(ValueError, match="`stage`=7: convnet_cs231n has 2 feature maps"):
        map_each(Predictor(small_network()), pixels(0), stage=7)
    with pytest.raises(ValueError, match="maps come from a network of the atlas"):
        map_each(Predictor(nn.Flatten(), transform=TRANSFORM, class_names=["a"]), pixels(0))
    (found,) = map_each(Predictor(small_network()), pixels(0))
    assert isinstance(found, FeatureMaps)
    with pytest.raises(ValueError, match="`units`=0; expected 1 to 1,024"):
        found.figure(units=0)
    with pytest.raises(ValueError, match="unknown theme 'drk'; nearest: dark"):
        found.figure(theme="drk")


def test_a_bad_image_is_listed(tmp_path: Path) -> None:
    save_images(tmp_path, 1)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    found = list(map_each(Predictor(small_network()), str(tmp_path)))
    assert [type(each) for each in found] == [FeatureMaps, Skipped]


def test_maps_that_are_not_finite_are_drawn() -> None:
    (found,) = map_each(Predictor(small_network()), np.zeros((32, 32, 3), np.uint8), stage=0)
    assert isinstance(found, FeatureMaps)
    found.maps[3, 0, 0] = torch.nan
    assert faults(found.figure()) == []


def files(out: Path | None, *images: Path | str, form: str | None = None) -> OutFiles:
    return OutFiles(out, [str(each) for each in images], form, alone="cam", folder="explained")


def test_each_image_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, other = save_images(tmp_path / "a", 1), save_images(tmp_path / "b", 1)
    made = files(tmp_path / "out", tmp_path / "a", tmp_path / "b", form="svg")
    names = [made.path(str(path)).name for path in (*one, *other)]
    assert names == ["000.svg", "000-2.svg"]
    assert made.path("video.mp4", 12).name == "video-000012.svg"
    assert made.path("A:b\x1b.png").name == "A_b_.svg"
    assert files(None, *one).path(str(one[0])) == Path("cam.png")
    assert files(None, *one, form="pdf").path(str(one[0])) == Path("cam.pdf")
    assert files(tmp_path / "one.svg", *one).path(str(one[0])) == tmp_path / "one.svg"


def test_files_that_cannot_be(tmp_path: Path) -> None:
    both = save_images(tmp_path / "p", 2)
    with pytest.raises(ValueError, match="is one file, and there are 2 images; expected a folder"):
        files(tmp_path / "cam.png", tmp_path / "p")
    with pytest.raises(ValueError, match=r"expected a name that ends in .svg, .png, .pdf, or a folder"):
        files(tmp_path / "cam.jpg", both[0])
    with pytest.raises(ValueError, match="`format`='jpg'; expected one of svg, png, pdf"):
        files(None, both[0], form="jpg")
    with pytest.raises(ValueError, match="name different types"):
        files(tmp_path / "cam.png", both[0], form="svg")
