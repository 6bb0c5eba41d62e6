import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor

import convatlas
from convatlas.data.sets import ImageSet, Source
from convatlas.evaluation.evaluate import Report, evaluate
from convatlas.evaluation.report import write_evaluation
from convatlas.predict.predictor import Predictor
from made_images import NAMES, TRANSFORM, pixels, small_network

COUNT = 60


def labels(count: int = COUNT) -> Tensor:
    return torch.arange(count) * 7 % 10


def source(count: int = COUNT, px: int = 32) -> Source:
    images = torch.stack([torch.from_numpy(pixels(i, px, px)).permute(2, 0, 1) for i in range(count)])
    split = ImageSet(images, labels(count))
    return Source("noise", split, split, NAMES, "", (3, px, px))


def predictor(seed: int = 0, **options: Any) -> Predictor:
    return Predictor(small_network(seed), **options)


def shares(images: Tensor, seed: int = 0) -> Tensor:
    """The network's probabilities, computed without the code under test."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (TRANSFORM.mean, TRANSFORM.std))
    with torch.no_grad():
        return small_network(seed)(((images.double() / 255 - mean) / std).float()).double().softmax(dim=1)


def test_figures() -> None:
    found = evaluate(predictor(), source())
    wanted = shares(source().test.images)  # type: ignore[attr-defined]
    best = wanted.topk(5, dim=1).indices
    right = int((best[:, 0] == labels()).sum())
    assert (found.evaluation.correct, found.evaluation.count) == (right, COUNT)
    assert found.evaluation.top5 == int((best == labels()[:, None]).any(dim=1).sum())
    assert found.evaluation.predicted.tolist() == best[:, 0].tolist()
    torch.testing.assert_close(found.confidences, wanted.max(dim=1).values, rtol=1e-5, atol=1e-7)
    own = wanted[torch.arange(COUNT), labels()]
    assert found.evaluation.loss == pytest.approx(-own.log().mean().item(), rel=1e-5)
    bounds = binomtest(right, COUNT).proportion_ci(0.95, method="wilson")
    assert found.top1_interval == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert found.evaluation.confusion.sum(dim=1).tolist() == [6] * 10


@pytest.mark.parametrize("protocol", ["single", "10crop", "multiscale"])
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 3), (64, 2)])
def test_batches_and_workers_change_nothing(
    protocol: Any, batch_size: int, workers: int, tmp_path: Path
) -> None:
    data = f"folder:{folder(tmp_path)}"
    first = evaluate(predictor(workers=1), data, protocol=protocol, split="all", batch_size=5)
    found = evaluate(predictor(workers=workers), data, protocol=protocol, split="all", batch_size=batch_size)
    assert found.evaluation.correct == first.evaluation.correct
    assert found.evaluation.top5 == first.evaluation.top5
    assert torch.equal(found.evaluation.confusion, first.evaluation.confusion)
    assert torch.equal(found.evaluation.predicted, first.evaluation.predicted)
    counts = [[each.count for each in report.calibration.bins] for report in (found, first)]
    assert counts[0] == counts[1]
    torch.testing.assert_close(found.confidences, first.confidences, rtol=1e-5, atol=1e-6)


def folder(path: Path, count: int = 8) -> Path:
    """Two of the network's classes, images of several shapes."""
    for number, name in enumerate(("class 3", "class_8")):
        (path / "data" / name).mkdir(parents=True)
        for i in range(count):
            noise = pixels(100 * number + i, 32 + 3 * (i % 3), 32 + 8 * (i % 2))
            Image.fromarray(noise).save(path / "data" / name / f"{i}.png")
    return path / "data"


def test_equal_logits_are_ordered_by_class() -> None:
    net = small_network()
    torch.nn.init.zeros_(net.get_classifier().weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(net.get_classifier().bias)  # type: ignore[arg-type]
    found = evaluate(Predictor(net), source())
    assert found.evaluation.predicted.tolist() == [0] * COUNT
    assert (found.evaluation.correct, found.evaluation.top5) == (6, 30)
    assert found.evaluation.loss == pytest.approx(np.log(10))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_mirror_images_and_members_are_averaged(average: Any) -> None:
    data = source()
    found = evaluate([predictor(0), predictor(1)], data, flip=True, average=average)
    images = data.test.images  # type: ignore[attr-defined]
    each = torch.stack([shares(view, seed) for seed in (0, 1) for view in (images, images.flip(3))])
    # Softmax of a mean of logits is the normalised geometric mean of the probabilities.
    mean = each.mean(dim=0) if average == "probabilities" else each.log().mean(dim=0).softmax(dim=1)
    assert found.evaluation.predicted.tolist() == mean.argmax(dim=1).tolist()
    torch.testing.assert_close(found.confidences, mean.max(dim=1).values, rtol=1e-5, atol=1e-6)
    assert (found.views, found.networks) == (2, ("convnet_cs231n", "convnet_cs231n"))


def test_members_with_other_transforms() -> None:
    other = small_network(1)
    other.transform = dataclasses.replace(TRANSFORM, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    data = source()
    with torch.no_grad():
        second = other(data.test.images / 255).double().softmax(dim=1)  # type: ignore[attr-defined]
    mean = (shares(data.test.images) + second) / 2  # type: ignore[attr-defined]
    found = evaluate([predictor(), Predictor(other)], data)
    torch.testing.assert_close(found.confidences, mean.max(dim=1).values, rtol=1e-5, atol=1e-6)


def test_dense_at_the_training_size_is_a_single_view() -> None:
    one, dense = (evaluate(predictor(), source(), protocol=name) for name in ("single", "dense"))
    assert torch.equal(one.evaluation.predicted, dense.evaluation.predicted)
    torch.testing.assert_close(one.confidences, dense.confidences, rtol=1e-5, atol=1e-6)


def test_several_scales_are_averaged() -> None:
    data, net = source(10, 48), predictor()
    parts = [evaluate(net, data, protocol="dense", scales=[px]) for px in (32, 40)]
    both = evaluate(net, data, protocol="multiscale", scales=[32, 40])
    for row in range(10):
        # The mean of two distributions whose best class is the same has the mean of its probabilities.
        same = len({int(split.evaluation.predicted[row]) for split in parts}) == 1
        if same:
            mean = sum(float(split.confidences[row]) for split in parts) / 2
            assert float(both.confidences[row]) == pytest.approx(mean, rel=1e-5)
    loss = torch.stack([split.evaluation.losses for split in parts]).neg().exp().mean(dim=0).log().neg()
    torch.testing.assert_close(both.evaluation.losses, loss, rtol=1e-5, atol=1e-6)


def test_a_run_reaches_what_training_measured(lenet_run: Path) -> None:
    record = json.loads((lenet_run / "run.json").read_text())
    found = evaluate(lenet_run, batch_size=50)
    assert found.top1 == record["result"]["test_accuracy"]
    assert found.evaluation.count == record["data"]["test"]
    assert found.notes == ()


def test_a_run_on_what_it_learnt_from(lenet_run: Path) -> None:
    found = evaluate(lenet_run, split="all", protocol="dense")
    assert found.notes == ("the split 'all' holds images that the run was trained on",)
    assert found.evaluation.count == 1797
    assert found.top1 > 0.97


def test_a_folder_with_bad_images(tmp_path: Path) -> None:
    data = folder(tmp_path)
    (data / "class 3" / "bad.png").write_text("nothing")
    found = evaluate(predictor(), f"folder:{data}", split="all", protocol="dense")
    assert found.evaluation.count == 16
    assert [Path(entry.path).name for entry in found.skipped] == ["bad.png"]
    assert found.evaluation.confusion.sum(dim=1).nonzero().flatten().tolist() == [3, 8]


def test_two_images_of_a_class_are_enough(tmp_path: Path) -> None:
    assert evaluate(predictor(), f"folder:{folder(tmp_path, 2)}", split="all").evaluation.count == 4


def test_a_image_that_goes_bad_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from convatlas.data.image_files import ImageError

    data, read = source(12), ImageSet.image

    def image(self: ImageSet, index: int) -> Tensor:
        if index == 5:
            raise ImageError("image 5: cut off")
        return read(self, index)

    monkeypatch.setattr(ImageSet, "image", image)
    found = evaluate(predictor(), data, batch_size=4)
    assert (found.evaluation.count, found.seen.tolist().index(False)) == (11, 5)
    assert [(entry.path, entry.reason) for entry in found.skipped] == [("image 5", "cut off")]


def test_logits_that_are_no_numbers() -> None:
    net = small_network()
    torch.nn.init.constant_(net.get_classifier().bias, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"image 0: the network's logits are NaN"):
        evaluate(Predictor(net), source())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"networks": []}, "`networks` is empty", id="no network"),
        pytest.param({"data": None}, "`data`: say on which images", id="no data"),
        pytest.param({"batch_size": 0}, "`batch_size`=0; expected a whole number", id="batch"),
        pytest.param({"weights": "ema"}, "`weights`='ema' goes with the folder of a run", id="weights"),
        pytest.param({"protocol": "ten"}, "unknown protocol 'ten'", id="protocol"),
        pytest.param({"protocol": "10crop", "scales": [16]}, "16 px are less than", id="scale"),
    ],
)
def test_what_cannot_be_measured(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"networks": predictor(), "data": source()} | options
    with pytest.raises(ValueError, match=message):
        evaluate(given.pop("networks"), given.pop("data"), **given)


def test_an_ensemble_of_other_classes() -> None:
    other = Predictor(small_network(), class_names=[f"other {k}" for k in range(10)])
    with pytest.raises(ValueError, match=r"has other classes .* an ensemble needs the same"):
        evaluate([predictor(), other], source())


def test_dense_needs_the_network_itself() -> None:
    class Logits(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(2, 3))

    plain = Predictor(Logits(), transform=TRANSFORM, class_names=NAMES[:3])
    data = dataclasses.replace(
        source(3), class_names=NAMES[:3], test=ImageSet(source(3).test.images, labels(3) % 3)
    )  # type: ignore[attr-defined]
    assert evaluate(plain, data).top5 is None
    with pytest.raises(ValueError, match="'dense' rebuilds the classifier"):
        evaluate(plain, data, protocol="dense")
    with pytest.raises(ValueError, match="the predictor's transform is a function"):
        evaluate(Predictor(Logits(), transform=lambda image: image, class_names=NAMES[:3]), data)


def written(report: Report, path: Path) -> set[str]:
    write_evaluation(report, path)
    return {file.name for file in path.iterdir()}


def test_the_report(tmp_path: Path) -> None:
    found = evaluate(predictor(), source(), protocol="10crop")
    tables = {"classes.csv", "confusion.csv", "images.csv", "evaluation.json", "report.md"}
    images = {"confusion.png", "reliability.png", "hardest.png"}
    assert written(found, tmp_path / "a" / "report") == tables | images
    root = tmp_path / "a" / "report"
    page, figures = (root / "report.md").read_text(), json.loads((root / "evaluation.json").read_text())
    assert f"**Top-1 accuracy {found.top1:.2%} (95 % interval" in page
    assert "Protocol: 10crop, short side 32 px, 10 views, mean of probabilities" in page
    assert figures["top1_correct"] == found.evaluation.correct
    assert len((root / "images.csv").read_text().splitlines()) == COUNT + 1
    rows = [line.split(",")[1:] for line in (root / "confusion.csv").read_text().splitlines()[1:]]
    assert torch.equal(torch.tensor([[int(n) for n in row] for row in rows]), found.evaluation.confusion)
    with Image.open(root / "reliability.png") as image:
        assert image.size == (552, 648)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: is a file; a report is a folder"):
        write_evaluation(found, tmp_path / "file")


def test_public_name() -> None:
    assert convatlas.evaluate is evaluate
