"""Local response normalisation against the formula of Krizhevsky et al. 2012, Section 3.3."""

import pytest
import torch
import torch.nn.functional as F

from convatlas.blocks.norm import LocalResponseNorm


def formula(a: torch.Tensor, n: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    """b_i = a_i / (k + alpha sum a_j^2)^beta over j from max(0, i - n/2) to min(N - 1, i + n/2)."""
    channels = a.shape[1]
    out = torch.empty_like(a)
    for i in range(channels):
        window = a[:, max(0, i - n // 2) : min(channels - 1, i + n // 2) + 1]
        out[:, i] = a[:, i] / (k + alpha * window.pow(2).sum(dim=1)) ** beta
    return out


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"),
    [(5, 1e-4, 0.75, 2.0), (3, 0.3, 0.5, 1.0), (1, 0.2, 1.0, 0.5), (9, 0.1, 0.75, 2.0)],
    ids=["paper", "narrow", "itself", "wider-than-the-map"],
)
def test_formula(size: int, alpha: float, beta: float, k: float) -> None:
    a = 3 * torch.randn(2, 7, 3, 4, dtype=torch.float64)
    layer = LocalResponseNorm(size, alpha=alpha, beta=beta, k=k)
    torch.testing.assert_close(layer(a), formula(a, size, alpha, beta, k))


def test_defaults_are_the_constants_of_the_paper() -> None:
    a = 30 * torch.randn(1, 16, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(LocalResponseNorm()(a), formula(a, 5, 1e-4, 0.75, 2.0))


def test_torch_divides_alpha_by_the_window() -> None:
    a = 30 * torch.randn(1, 16, 2, 2, dtype=torch.float64)
    theirs = F.local_response_norm(a, 5, alpha=5e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(LocalResponseNorm()(a), theirs)
    assert not torch.allclose(
        LocalResponseNorm()(a), F.local_response_norm(a, 5, alpha=1e-4, k=2.0), rtol=1e-3
    )


def test_groups_do_not_see_each_other() -> None:
    a = 3 * torch.randn(2, 12, 3, 3, dtype=torch.float64)
    parts = [LocalResponseNorm(alpha=0.1)(part) for part in a.chunk(3, dim=1)]
    torch.testing.assert_close(LocalResponseNorm(alpha=0.1, groups=3)(a), torch.cat(parts, dim=1))


def test_gradient() -> None:
    a = torch.randn(1, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(3, alpha=0.3, groups=2), (a,))


def test_bfloat16_and_channels_last() -> None:
    a = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    out = LocalResponseNorm()(a)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert LocalResponseNorm()(a.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(LocalResponseNorm()(a.bfloat16()).float(), out, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("size", [4, 0, -1])
def test_window_has_a_centre(size: int) -> None:
    with pytest.raises(ValueError, match=rf"`size`={size}; expected an odd number of channels"):
        LocalResponseNorm(size)


def test_printed() -> None:
    assert repr(LocalResponseNorm(groups=2)) == (
        "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2.0, groups=2)"
    )
