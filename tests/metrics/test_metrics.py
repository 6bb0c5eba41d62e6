import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from convatlas.metrics.calibration import by_class, calibrate


def test_calibration_by_hand() -> None:
    # Two bins: (0, 0.5] holds 0.5 (right) and 0.3 (wrong), (0.5, 1] holds 0.9, 0.8 (right) and 1.0 (wrong).
    found = calibrate(np.array([0.5, 0.9, 0.3, 0.8, 1.0]), np.array([True, True, False, True, False]), bins=2)
    low, high = found.bins
    assert (low.low, low.high, low.count, low.confidence, low.accuracy) == (0.0, 0.5, 2, 0.4, 0.5)
    assert (high.low, high.high, high.count) == (0.5, 1.0, 3)
    assert (high.confidence, high.accuracy) == (pytest.approx(0.9), pytest.approx(2 / 3))
    assert found.error == pytest.approx((2 * 0.1 + 3 * (0.9 - 2 / 3)) / 5)
    assert found.worst == pytest.approx(0.9 - 2 / 3)


def test_calibration_by_definition() -> None:
    draw = np.random.default_rng(0)
    confidences, is_right = draw.uniform(0.1, 1.0, 500), draw.random(500) < 0.6
    total = 0.0
    for k in range(15):
        inside = (confidences > k / 15) & (confidences <= (k + 1) / 15)
        if inside.any():
            total += inside.sum() / 500 * abs(is_right[inside].mean() - confidences[inside].mean())
    found = calibrate(confidences, is_right)
    assert found.error == pytest.approx(total)
    assert found.bins[0].count == 0
    assert found.bins[0].accuracy is None
    assert sum(each.count for each in found.bins) == 500


def test_a_calibrated_network_has_no_error() -> None:
    assert calibrate(np.full(4, 0.75), np.array([True, True, True, False])).error == 0.0


@pytest.mark.parametrize(("count", "bins"), [(0, 15), (3, 0)])
def test_nothing_to_calibrate(count: int, bins: int) -> None:
    with pytest.raises(
        ValueError, match=f"{count} predictions in `bins`={bins}; expected at least one of both"
    ):
        calibrate(np.full(count, 0.5), np.full(count, True), bins)


def test_classes() -> None:
    draw = np.random.default_rng(1)
    truth, predictions = draw.integers(0, 4, 200), draw.integers(0, 4, 200)
    truth[truth == 2] = 1  # No image of class 2, ...
    predictions[predictions == 3] = 0  # ... and class 3 is never predicted.
    confusion = np.zeros((4, 4), dtype=np.int64)
    np.add.at(confusion, (truth, predictions), 1)
    precision, recall, _, support = precision_recall_fscore_support(
        truth, predictions, labels=range(4), zero_division=np.nan
    )
    found = by_class(confusion, ("a", "b", "c", "d"))
    nan = float("nan")
    assert [row.images for row in found] == support.tolist()
    assert [nan if r.recall is None else r.recall for r in found] == pytest.approx(recall, nan_ok=True)
    assert [nan if r.precision is None else r.precision for r in found] == pytest.approx(
        precision, nan_ok=True
    )
    bounds = binomtest(found[0].right, found[0].images).proportion_ci(0.95, method="wilson")
    assert (found[0].low, found[0].high) == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert found[2].low is None
    assert found[3].confused_with == ("a", "b", "c")[confusion[3, :3].argmax()]
    assert found[2].confused_with is None
    assert found[0].record()["name"] == "a"
