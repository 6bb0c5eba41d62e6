"""Crops, scales and ensembles: averages by hand, the verdict on made-up errors, and a tiny run on digits."""

from pathlib import Path

import pytest
import torch

from convatlas.data.sets import ImageSet
from convatlas.evaluation.evaluate import evaluate
from convatlas.predict.predictor import Predictor
from convatlas.studies.context import StudyContext, run_study
from convatlas.studies.study import find_study
from convatlas.studies.test_time import Errors, find, protocols, score, share_wrong
from convatlas.studies.verdict import Verdict, conclude

SMALL = {
    "data": "digits",
    "images": 60,
    "test_images": 20,
    "px": 8,
    "seeds": 2,
    "epochs": 1,
    "members": 2,
    "scales": (256, 288, 336),
}


def errors(crops: float, scales: float, networks: float) -> Errors:
    """10 % with one crop or one scale of one network; less with more by so many points, over three seeds."""
    found: Errors = {}
    for count in (1, 3):
        base = 10.0 if count == 1 else 10.0 - networks
        means = {"1 crop": base, "10 crops": base - crops, "dense": base, "dense, 3 scales": base - scales}
        for place, (name, mean) in enumerate(means.items()):
            found[name, count] = [mean + n * (1 + place + count) / 10 for n in (0.2, -0.1, -0.1)]
    return found


@pytest.mark.parametrize(
    ("crops", "scales", "networks", "verdict"),
    [
        (0.9, 0.8, 2.6, Verdict.HOLDS),
        (-0.9, 0.8, 2.6, Verdict.FAILS),
        (0.9, -0.8, 2.6, Verdict.FAILS),
        (0.9, 0.8, -2.6, Verdict.FAILS),
        (0.9, 0.0, 2.6, Verdict.OPEN),
    ],
    ids=["as published", "crops harm", "scales harm", "networks harm", "scales do nothing"],
)
def test_verdict(crops: float, scales: float, networks: float, verdict: Verdict) -> None:
    assert conclude(find(errors(crops, scales, networks), 3)) is verdict


def test_scales_are_in_proportion_to_the_crop() -> None:
    # 256, 288 and 320 px for crops of 224 are 37, 41 and 46 for crops of 32.
    shown = protocols(32, (256, 288, 320))
    assert {name: protocol.scales for name, protocol in shown.items()} == {
        "1 crop": (41,),
        "10 crops": (41,),
        "dense": (41,),
        "dense, 3 scales": (37, 41, 46),
    }


def test_probabilities_are_averaged_over_views_and_networks() -> None:
    samples = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    # Of the first image, two views are a little for class 1 and one is sure of 0: the mean is for 0.
    little, sure = torch.tensor([0.4, 0.6]).log(), torch.tensor([0.99, 0.01]).log()
    first = [torch.stack([little, little, sure]), torch.stack([sure])]
    second = [torch.stack([little]), torch.stack([sure])]
    assert share_wrong(samples, [first]) == 50.0  # the second image is said to be 0
    assert share_wrong(samples, [second]) == 100.0
    # Class 0 of the first image: the networks' (0.4 + 0.4 + 0.99) / 3 and 0.4 have a mean of 0.498. All
    # four views together would have one of 0.548.
    assert share_wrong(samples, [first, second]) == 100.0


def test_a_tiny_run_agrees_with_the_evaluation_of_convatlas(tmp_path: Path) -> None:
    said: list[str] = []
    folder, _ = run_study("test-time", out=tmp_path, log=said.append, **SMALL)
    assert len(said) == 4
    assert [line.partition(":")[0].rpartition("-seed")[2] for line in said] == ["0", "1", "2", "3"]
    assert (folder / "test-time.png").stat().st_size > 0
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "| 2 | dense, 3 scales | 6 whole images | 9, 10, 12 |" in page

    study = find_study("test-time")
    ctx = StudyContext(knobs=study.knobs("quick", SMALL), runs=tmp_path / "runs", log=said.append)
    trained = ctx.train(
        "resnet20_cifar",
        seed=0,
        model={"blocks_per_stage": 1},
        recipe="resnet_cifar",
        epochs=1,
        batch_size=32,
        lr=0.05,
        augment={"flip": 0.5, "scale_jitter": {"low": 256, "high": 336}},
    )
    assert said[-1].endswith("(was there)")
    predictor = Predictor(
        trained.net,
        transform=trained.transform,
        class_names=ctx.source.class_names,
        workers=1,
        device="cpu",
    )
    report = evaluate(predictor, ctx.source, protocol="10crop", scales=(10,))
    ours = share_wrong(ctx.source.test, [score(ctx, trained, protocols(8, (256, 288, 336))["10 crops"])])
    assert ours == pytest.approx(100.0 * (1.0 - report.top1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 1}, r"`members`=1"),
        ({"scales": (256, 256, 320)}, r"`scales`=\[256, 256, 320\]; expected three that rise from above 224"),
        ({"scales": (200, 256, 320)}, r"`scales`=\[200, 256, 320\]"),
    ],
    ids=["no ensemble", "equal scales", "smaller than the crop"],
)
def test_bad_knobs(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_study("test-time", out="unused", **settings)
