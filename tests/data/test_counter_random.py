import numpy as np
import pytest

from convatlas.data.counter_random import permutation, uniform


def test_a_draw_depends_on_its_sample_alone() -> None:
    whole = uniform(7, 3, np.arange(100), "affine", 4)
    part = uniform(7, 3, np.array([90, 5, 17]), "affine", 4)
    assert np.array_equal(part, whole[[90, 5, 17]])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((8, 3, "affine"), id="seed"),
        pytest.param((7, 4, "affine"), id="epoch"),
        pytest.param((7, 3, "flip"), id="purpose"),
    ],
)
def test_another_purpose_gives_other_numbers(other: tuple[int, int, str]) -> None:
    seed, epoch, purpose = other
    first = uniform(7, 3, np.arange(1000), "affine", 2).ravel()
    second = uniform(seed, epoch, np.arange(1000), purpose, 2).ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert not np.isin(first, second).any()


def test_numbers_are_uniform_and_independent() -> None:
    draws = uniform(0, 0, np.arange(20_000), "x", 3)
    assert ((draws >= 0) & (draws < 1)).all()
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    chi_squared = ((counts - 3000) ** 2 / 3000).sum()
    assert chi_squared < 43.8  # 99.9 % quantile of 19 degrees of freedom
    across = np.corrcoef(draws.T)
    assert np.abs(across - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.03


def test_permutation_is_one_and_changes_with_the_epoch() -> None:
    first, second = permutation(0, 0, 1000), permutation(0, 1, 1000)
    assert np.array_equal(np.sort(first), np.arange(1000))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, permutation(0, 0, 1000))
