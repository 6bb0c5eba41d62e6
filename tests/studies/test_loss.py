"""Softmax and hinge: CS231n's printed losses, the verdict on made-up errors, and a tiny run on digits."""

import math

import numpy as np
import pytest
import torch

from convatlas.metrics.calibration import calibrate
from convatlas.studies.learning.loss import compute_facts, softmax_losses
from convatlas.studies.run import run_study
from convatlas.studies.verdict import Verdict

PERFECT = calibrate(np.array([1.0]), np.array([True]))


def test_printed_losses_are_reproduced() -> None:
    facts = compute_facts()
    assert [fact.verdict for fact in facts] == [Verdict.HOLDS] * len(facts)
    # By hand: cat 5.1 - 3.2 + 1; car 0, 4.9 being over 1 more than the others; frog 2.2 + 2.5 + 2 (3.1 + 1).
    assert [fact.value for fact in facts[:3]] == pytest.approx([2.9, 0.0, 12.9])
    cat = math.exp(3.2) / (math.exp(3.2) + math.exp(5.1) + math.exp(-1.7))
    assert facts[4].value == pytest.approx(-math.log(cat))


def test_a_softmax_loss_is_never_0() -> None:
    scores = torch.tensor([[100.0, 0.0, 0.0], [3.2, 5.1, -1.7]], dtype=torch.float64)
    sure, cat = softmax_losses(scores, torch.tensor([0, 0])).tolist()
    assert sure == pytest.approx(2.0 * math.exp(-100.0), rel=1e-9)
    # 24.53, 164.02 and 0.18 are the exponentials of the scores.
    assert cat == pytest.approx(-math.log(24.53 / (24.53 + 164.02 + 0.18)), abs=1e-3)


def test_a_network_without_blocks() -> None:
    with pytest.raises(ValueError, match=r"`blocks`=0; expected a whole number of at least 1"):
        run_study("loss", out="unused", blocks=0)
