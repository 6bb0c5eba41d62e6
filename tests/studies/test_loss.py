"""Softmax and hinge: CS231n's printed losses, the verdict on made-up errors, and a tiny run on digits."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from convatlas.metrics.calibration import calibrate
from convatlas.studies.context import run_study
from convatlas.studies.loss import Result, Results, compute_facts, find, softmax_losses
from convatlas.studies.verdict import Verdict, conclude

PERFECT = calibrate(np.array([1.0]), np.array([True]))


def results(hinge: float, settled: float) -> Results:
    """Test errors of softmax around 10 % over three seeds, those of the hinge around `hinge`."""
    return {
        "softmax": [Result(10.0 + n, 0.0, PERFECT) for n in (0.2, -0.1, -0.1)],
        "hinge": [Result(hinge - n, settled + n, PERFECT) for n in (0.2, -0.1, -0.1)],
    }


@pytest.mark.parametrize(
    ("hinge", "settled", "verdict"),
    [
        (10.3, 60.0, Verdict.HOLDS),
        (9.6, 60.0, Verdict.HOLDS),
        (14.0, 60.0, Verdict.FAILS),
        (6.0, 60.0, Verdict.FAILS),
        (12.0, 60.0, Verdict.OPEN),  # just at the margin
        (10.0, 0.0, Verdict.OPEN),
    ],
    ids=["alike", "a little better", "worse", "better", "at the margin", "no image left alone"],
)
def test_verdict(hinge: float, settled: float, verdict: Verdict) -> None:
    assert conclude(find(results(hinge, settled), margin=2.0)) is verdict


def test_printed_losses_are_reproduced() -> None:
    facts = compute_facts()
    assert [fact.verdict for fact in facts] == [Verdict.HOLDS] * len(facts)
    # By hand: cat 5.1 - 3.2 + 1; car 0, 4.9 being over 1 more than the others; frog 2.2 + 2.5 + 2 (3.1 + 1).
    assert [fact.value for fact in facts[:3]] == pytest.approx([2.9, 0.0, 12.9])
    cat = math.exp(3.2) / (math.exp(3.2) + math.exp(5.1) + math.exp(-1.7))
    assert facts[4].value == pytest.approx(-math.log(cat))


def test_a_softmax_loss_is_never_0() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0], [3.2, 5.1, -1.7]], dtype=torch.float64)
    sure, cat = softmax_losses(logits, torch.tensor([0, 0])).tolist()
    assert sure == pytest.approx(2.0 * math.exp(-100.0), rel=1e-9)
    # 24.53, 164.02 and 0.18 are the exponentials of the logits.
    assert cat == pytest.approx(-math.log(24.53 / (24.53 + 164.02 + 0.18)), abs=1e-3)


def test_a_tiny_run(tmp_path: Path) -> None:
    small = {"data": "digits", "images": 60, "test_images": 40, "px": 8, "seeds": 2, "epochs": 2}
    said: list[str] = []
    folder, record = run_study("loss", out=tmp_path, log=said.append, **small)
    assert len(said) == 4
    effects = {entry["name"]: entry for entry in record["findings"] if entry["kind"] == "effect"}
    worse, better = (
        effects[f"test error, {name}"] for name in ("hinge minus softmax", "softmax minus hinge")
    )
    assert worse["values"] == tuple(-value for value in better["values"])
    assert worse["least"] == better["least"] == -2.0
    settled = effects["training images without any gradient, hinge minus softmax"]["values"]
    assert all(0.0 <= value < 100.0 for value in settled)
    assert (folder / "loss.png").stat().st_size > 0


def test_a_margin_of_nothing() -> None:
    with pytest.raises(ValueError, match=r"`margin`=0.0; expected points above 0"):
        run_study("loss", out="unused", margin=0.0)
