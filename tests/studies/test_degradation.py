"""The verdict on made-up errors of either side, and the whole study on a few small digits."""

from pathlib import Path

import pytest

from convatlas.studies.context import run_study
from convatlas.studies.degradation import Errors, Results, find
from convatlas.studies.verdict import Verdict, conclude


def results(plain_deep: float, resnet_deep: float) -> Results:
    """Test errors of 10 % but for the deep networks, with a little noise over three seeds."""
    means = {
        ("plain", 20): 10.0,
        ("plain", 56): plain_deep,
        ("resnet", 20): 10.0,
        ("resnet", 56): resnet_deep,
    }
    noise = {("plain", 20): (0.1, -0.1, 0.0), ("plain", 56): (0.2, 0.0, -0.2)}
    return {
        key: [Errors(mean + n, mean + n, (1.0,)) for n in noise.get(key, (0.0, 0.1, -0.1))]
        for key, mean in means.items()
    }


@pytest.mark.parametrize(
    ("plain_deep", "resnet_deep", "verdict"),
    [
        (20.0, 9.0, Verdict.HOLDS),
        (8.0, 9.0, Verdict.FAILS),
        (10.1, 10.0, Verdict.OPEN),
        (20.0, 25.0, Verdict.FAILS),  # the residual network degrades as much
    ],
    ids=["degrades", "improves", "within noise", "residual degrades too"],
)
def test_verdict(plain_deep: float, resnet_deep: float, verdict: Verdict) -> None:
    assert conclude(find(results(plain_deep, resnet_deep), 20, 56)) is verdict


def test_effects_are_paired_by_seed() -> None:
    effect = find(results(20.0, 9.0), 20, 56)[0]
    assert effect.values == pytest.approx((10.1, 10.1, 9.8))


def test_a_study_that_was_run_uses_its_trainings_again(tmp_path: Path) -> None:
    said: list[str] = []
    small = {"data": "digits", "images": 60, "test_images": 40, "px": 8, "seeds": 1, "deep": 32}
    for _ in range(2):
        folder, record = run_study("degradation", out=tmp_path, log=said.append, **small)
    assert record["verdict"] == "no evidence at this budget"  # one seed
    assert (folder / "degradation.png").stat().st_size > 0
    assert len(said) == 8
    assert [line.rpartition("(")[2] for line in said[4:]] == ["was there)"] * 4
    assert [line.partition(" (")[0] for line in said[4:]] == [line.partition(" (")[0] for line in said[:4]]


def test_a_depth_that_no_network_has() -> None:
    with pytest.raises(ValueError, match=r"are 6n \+ 2 layers; received 21, near 20"):
        run_study("degradation", out="unused", data="digits", images=60, shallow=21)
