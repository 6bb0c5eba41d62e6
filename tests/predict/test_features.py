from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convatlas
from convatlas.predict.features import Feature, describe, extract_features, write_features
from convatlas.predict.outputs import Skipped
from convatlas.predict.predictor import Predictor
from made_images import TRANSFORM, pixels, save_images, small_network


def predictor() -> Predictor:
    return Predictor(small_network(), batch_size=2)


def images(count: int) -> torch.Tensor:
    x = torch.stack([torch.from_numpy(pixels(i)).permute(2, 0, 1) for i in range(count)])
    mean, std = (torch.tensor(value)[:, None, None] for value in (TRANSFORM.mean, TRANSFORM.std))
    return (x / 255.0 - mean) / std


@pytest.mark.parametrize(
    ("stage", "pool", "shape"),
    [
        pytest.param(None, "avg", (12 * 16 * 16,), id="before the last layer"),
        pytest.param(0, "avg", (12,), id="mean"),
        pytest.param(-1, "max", (12,), id="maximum"),
        pytest.param(1, "none", (12, 16, 16), id="map"),
    ],
)
def test_features(tmp_path: Path, stage: int | None, pool: Any, shape: tuple[int, ...]) -> None:
    paths = save_images(tmp_path / "p", 5)
    found = list(extract_features(predictor(), paths, stage=stage, pool=pool))
    net, x = small_network(), images(5)
    with torch.no_grad():
        maps = net.forward_stages(x)
        wanted = {
            None: maps[-1].flatten(1),
            0: maps[0].mean(dim=(2, 3)),
            -1: maps[1].amax(dim=(2, 3)),
            1: maps[1],
        }[stage]
    for path, entry, values in zip(paths, found, wanted, strict=True):
        assert isinstance(entry, Feature)
        assert (entry.image, tuple(entry.values.shape)) == (str(path), shape)
        torch.testing.assert_close(entry.values, values, rtol=1e-4, atol=1e-5)


def test_bad_images_keep_their_place(tmp_path: Path) -> None:
    paths = save_images(tmp_path / "p", 3)
    paths[1].write_text("nothing")
    first, second, third = extract_features(predictor(), paths)
    assert isinstance(first, Feature)
    assert isinstance(third, Feature)
    assert isinstance(second, Skipped)
    assert "001.png: is no image" in second.reason


def test_files(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = save_images(tmp_path / "p", 3)
    found = [
        each
        for each in extract_features(predictor(), paths, stage=1, pool="none")
        if isinstance(each, Feature)
    ]
    for name in ("f.npz", "f.parquet"):
        write_features(found, tmp_path / name, {"network": "n", "layer": "pool"})
    values = torch.stack([each.values for each in found]).numpy()
    with np.load(tmp_path / "f.npz") as kept:
        np.testing.assert_array_equal(kept["features"], values)
        assert kept["images"].tolist() == [str(path) for path in paths]
        assert (kept["frames"].tolist(), str(kept["layer"])) == ([-1, -1, -1], "pool")
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table["image"].to_pylist() == [str(path) for path in paths]
    np.testing.assert_array_equal(np.stack(table["features"].to_numpy()), values.reshape(3, -1))
    assert table.schema.metadata == {b"network": b"n", b"layer": b"pool", b"shape": b"12,16,16"}


def test_stages_have_names() -> None:
    net = convatlas.create_model("resnet20_cifar")
    assert describe(net, -1) == "stages.2, stage 3 of 0 to 3, stride 4 px"
    assert describe(net, None) == "what goes into the last layer, 64 numbers"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"stage": 2}, "`stage`=2: convnet_cs231n has 2 feature maps: 0 stem, 1 pool", id="stage"
        ),
        pytest.param({"stage": -3}, "`stage`=-3: convnet_cs231n has 2 feature maps", id="negative"),
        pytest.param({"pool": "sum"}, "`pool`='sum'; expected 'avg', 'max' or 'none'", id="pool"),
    ],
)
def test_what_there_is_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract_features(predictor(), [], **options)


def test_a_network_of_elsewhere() -> None:
    other = Predictor(torch.nn.Flatten(), transform=TRANSFORM, class_names=["a"])
    with pytest.raises(ValueError, match="features come from a network of the atlas"):
        extract_features(other, [])


@pytest.mark.parametrize(
    ("name", "message"),
    [("f.csv", "expected a name that ends in .npz or .parquet"), ("f.npz", "there are no features to write")],
)
def test_files_that_are_not_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_features([], tmp_path / name, {})
