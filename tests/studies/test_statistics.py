"""Estimates against textbooks, and by simulation: coverage of intervals, and how often nothing "holds"."""

import math

import numpy as np
import pytest

from convatlas.studies.clauses import Clause
from convatlas.studies.statistics import estimate, holm
from convatlas.studies.verdict import Verdict, judge


def test_the_interval_of_seeds_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    # t(0.975; 2 degrees of freedom) = 4.302653 (any table); the standard error is 1 / sqrt(3).
    interval = found.interval()
    assert (interval.mean, found.count, found.images) == (2.0, 3, 0)
    assert interval.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3.0), rel=1e-6)
    assert 2.0 - interval.low == pytest.approx(4.302653 / math.sqrt(3.0), rel=1e-6)


def test_p_values_are_those_of_the_t_test() -> None:
    from scipy.stats import ttest_1samp

    values = [0.3, 1.2, -0.4, 0.9]
    found = estimate(values)
    assert found is not None
    assert found.p_above(0.1) == pytest.approx(ttest_1samp(values, 0.1, alternative="greater").pvalue)
    assert found.p_below(0.1) == pytest.approx(ttest_1samp(values, 0.1, alternative="less").pvalue)


def test_a_table_without_effects_of_images_is_about_as_exact_as_its_seeds() -> None:
    generator = np.random.default_rng(0)
    seeds = generator.normal(size=(6, 1))
    table = seeds + 1e-6 * generator.normal(size=(6, 500))
    crossed, plain = estimate(table), estimate(table.mean(axis=1))
    assert crossed is not None
    assert plain is not None
    assert crossed.error == pytest.approx(plain.error, rel=1e-3)
    assert crossed.freedom == pytest.approx(5.0, rel=1e-3)


def test_mean_squares_by_hand() -> None:
    # Seeds' means 1 and 3, images' means 1, 2, 3, no interaction: MS 6 and 2, variance (6 + 2 - 0) / 6.
    found = estimate(np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]))
    assert found is not None
    assert found.mean == 2.0
    assert found.error == pytest.approx(math.sqrt(8.0 / 6.0))
    assert found.freedom == pytest.approx(64.0 / (36.0 / 1 + 4.0 / 2))


@pytest.mark.parametrize("values", [[], [5.0], [2.0, 2.0, 2.0]], ids=["none", "one", "no spread"])
def test_what_is_no_sample_has_no_interval(values: list[float]) -> None:
    assert estimate(values) is None


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finite values; received \[1.0, nan\]"):
        estimate([1.0, math.nan])
    with pytest.raises(ValueError, match=r"expected \(seeds,\) or \(seeds, images\)"):
        estimate(np.zeros((2, 0)))


def test_holm_by_hand() -> None:
    # Holm 1979: the smallest of m times m, the next times m - 1, never falling.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "image_sd"),
    [(3, 0.05, 0.3), (5, 0.03, 0.2), (5, 0.1, 0.3), (5, 0.2, 0.1), (10, 0.02, 0.3)],
)
def test_coverage_is_that_of_the_level(seeds: int, seed_sd: float, image_sd: float) -> None:
    generator = np.random.default_rng(seeds)
    effect, covered, trials = 0.7, 0, 2000
    for _ in range(trials):
        table = (
            effect
            + generator.normal(0.0, seed_sd, (seeds, 1))
            + generator.normal(0.0, image_sd, (1, 300))
            + generator.normal(0.0, 0.4, (seeds, 300))
        )
        found = estimate(table)
        assert found is not None
        interval = found.interval()
        covered += interval.low <= effect <= interval.high
    assert 0.93 <= covered / trials <= 0.97


def answers(generator: np.random.Generator, seeds: int, images: int, hardness: np.ndarray) -> np.ndarray:
    """Wrong answers of one arm: images are hard for all networks alike, and networks differ."""
    skill = generator.normal(0.0, 0.3, (seeds, 1))
    return (generator.random((seeds, images)) < 1.0 / (1.0 + np.exp(-(hardness + skill)))).astype(float)


CLAUSES = (
    Clause(name="less", says="less", measure="a - b", above=0.0),
    Clause(name="alike", says="alike", measure="c - d", within=2.0),
)


@pytest.mark.parametrize(
    "clauses", [CLAUSES[:1], CLAUSES[1:], CLAUSES], ids=["directed", "equivalence", "both"]
)
def test_nothing_holds_seldom(clauses: tuple[Clause, ...]) -> None:
    """Of 2,000 null studies at most 5 % hold; an equivalence is null at its margin."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        hardness = generator.normal(-1.5, 1.5, (1, 150))
        a, b = (answers(generator, 5, 150, hardness) for _ in range(2))
        table = 100.0 * (a - b)
        samples = {"less": table, "alike": table + 2.0}
        held += judge(clauses, {c.name: samples[c.name] for c in clauses}).verdict is Verdict.HOLDS
    assert held <= 0.05 * 2000
