"""How logits are compared."""

import math

import pytest
import torch

from convatlas.engines.agreement import compare

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("logits", "expected", "error", "same_top"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.0, 1.0),
        ([[1.0, 3.0]], [[1.0, 4.0]], 0.25, 1.0),
        ([[4.0, 1.0], [0.0, 2.0]], [[1.0, 4.0], [0.0, 2.0]], 0.75, 0.5),
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0, 1.0),
        ([[0.5, 0.0]], [[0.0, 0.0]], 0.5, 1.0),
        ([[1.0, INF]], [[1.0, 2.0]], INF, 1.0),
        ([[1.0, NAN]], [[1.0, 2.0]], INF, 1.0),
        ([[1.0, INF]], [[1.0, INF]], 0.0, 1.0),
        ([[1.0, -INF]], [[1.0, INF]], INF, 0.0),
        ([[NAN, NAN]], [[NAN, NAN]], 0.0, 1.0),
        ([[NAN, INF]], [[INF, NAN]], INF, 0.0),
        ([[1.0, 2.0, 3.0]], [[1.0, 2.0]], INF, 0.0),
    ],
    ids=lambda value: str(value),
)
def test_error_and_top_class(
    logits: list[list[float]], expected: list[list[float]], error: float, same_top: float
) -> None:
    found = compare(torch.tensor(logits), torch.tensor(expected))
    assert found.error == pytest.approx(error)
    assert found.same_top == same_top
    assert found.images == len(expected)
