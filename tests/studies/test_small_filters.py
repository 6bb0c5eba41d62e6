"""Stacks of small filters: the arithmetic by hand, the verdict on made-up errors, and a tiny run."""

import pytest
import torch

from convatlas.studies.modules.small_filters import (
    FilterNet,
    SmallFiltersKnobs,
    count,
    make_filters,
    width_of,
)
from convatlas.studies.verdict import Verdict


@pytest.mark.parametrize(
    ("kernel", "stack", "large"),
    [(5, 18 * 64, 25 * 64), (7, 27 * 64, 49 * 64), (9, 36 * 64, 81 * 64)],
    ids=["5x5", "7x7", "9x9"],
)
def test_arithmetic(kernel: int, stack: int, large: int) -> None:
    facts = count(kernel, 8)
    assert [fact.value for fact in facts[:3]] == [kernel, stack, large]
    assert {fact.verdict for fact in facts} == {Verdict.HOLDS}


def test_the_paper_prints_81_per_cent_more() -> None:
    assert count(7, 16)[2].note == "49 C^2, 81 % more"


def test_a_stack_sees_exactly_the_px_of_the_large_filter() -> None:
    # By gradient rather than by the sizing: which input px move the middle of the output.
    stack = make_filters("stack", 7, 2, norm=None)
    for weight in stack.parameters():
        torch.nn.init.ones_(weight)
    x = torch.ones(1, 2, 15, 15, requires_grad=True)
    stack(x)[0, 0, 7, 7].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()
    assert seen.min(dim=0).values.tolist() == [4, 4]
    assert seen.max(dim=0).values.tolist() == [10, 10]


@pytest.mark.parametrize(("kernel", "width"), [(7, 16), (5, 16), (7, 64)], ids=str)
def test_the_wide_stack_is_the_widest_that_is_not_dearer(kernel: int, width: int) -> None:
    wide = width_of("wide stack", kernel, width)
    each, most = 9 * (kernel // 2), (kernel * width) ** 2
    assert each * wide**2 <= most < each * (wide + 1) ** 2


def test_shapes() -> None:
    net = FilterNet("stack", 7, 4, stages=2, in_chans=3, num_classes=5)
    assert net(torch.zeros(2, 3, 9, 9)).shape == (2, 5)


@pytest.mark.parametrize("kernel", [3, 6], ids=["no stack", "even"])
def test_bad_filters(kernel: int) -> None:
    with pytest.raises(ValueError, match=r"expected an odd size of at least 5 px"):
        SmallFiltersKnobs(kernel=kernel)
