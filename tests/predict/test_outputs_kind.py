"""Networks that end in a softmax, and networks of few classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convatlas import Predictor
from convatlas.metrics.probabilities import are_probabilities

LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.0])
# By hand: exp of each, over their sum.
SHARES = {"a": 0.705385, "c": 0.157393, "d": 0.095463, "b": 0.035119}


class Constant(nn.Module):
    """The same outputs for every image."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outputs.expand(len(x), -1)


def predictor(given: torch.Tensor, **options: Any) -> Predictor:
    names = "abcdefghij"[: len(given)]
    return Predictor(
        Constant(given), transform=lambda image: torch.zeros(3, 4, 4), class_names=tuple(names), **options
    )


def shares(found: Predictor) -> dict[str, float]:
    (prediction,) = found.predict(torch.zeros(3, 8, 8), top=4)
    return dict(prediction.top)


def test_probabilities_are_not_normalised_again() -> None:
    total = sum(SHARES.values())
    for outputs in (LOGITS, torch.exp(LOGITS) / torch.exp(LOGITS).sum()):
        assert shares(predictor(outputs)) == pytest.approx(
            {k: v / total for k, v in SHARES.items()}, abs=1e-2
        )
    exact = torch.exp(LOGITS) / torch.exp(LOGITS).sum()
    found = shares(predictor(exact))
    assert [found[name] for name in "abcd"] == pytest.approx(exact.tolist(), abs=1e-6)


def test_the_user_may_say_what_they_are() -> None:
    uniform = torch.full((4,), 0.25)
    spiked = torch.tensor([0.7, 0.1, 0.1, 0.1])
    assert list(shares(predictor(uniform)).values()) == pytest.approx([0.25] * 4)
    as_logits = shares(predictor(spiked, outputs="logits"))
    assert as_logits["a"] == pytest.approx(0.377867, abs=1e-5)  # e^0.7 / (e^0.7 + 3 e^0.1)
    assert shares(predictor(spiked, outputs="probabilities"))["a"] == pytest.approx(0.7)


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="`outputs`='scores'; allowed are 'auto', 'logits', 'probabilities'"):
        predictor(LOGITS, outputs="scores")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0.5, 0.5], [0.9, 0.1]], True),
        ([[0.5, 0.5], [0.9, 0.2]], False),
        ([[1.5, -0.5]], False),
        ([[1.0]], False),
        ([[float("nan"), 1.0]], False),
    ],
)
def test_what_is_a_distribution(rows: list[list[float]], expected: bool) -> None:
    assert are_probabilities(torch.tensor(rows)) is expected


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_default_is_cut_to_the_number_of_classes(count: int) -> None:
    (prediction,) = predictor(torch.arange(float(count))).predict(torch.zeros(3, 8, 8))
    assert len(prediction.top) == min(3, count)
    with pytest.raises(ValueError, match=f"`top`={count + 1}; expected 1 to {count}"):
        predictor(torch.arange(float(count))).predict(torch.zeros(3, 8, 8), top=count + 1)
