"""Normalisation that is not batch normalisation."""

import torch.nn.functional as F
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """Divides each value by a power of the energy of its neighbours in the channel axis.

    b_i = a_i / (k + alpha * sum of a_j^2 over the `size` channels around i) ^ beta.

    As in the paper, `alpha` multiplies the sum. Caffe and `torch.nn.LocalResponseNorm` divide it by
    `size` first: their alpha of 5e-4 is 1e-4 here. There is no parameter to learn.

    Args:
        size: n, channels in the window, an odd number; the window ends at the border of its group.
        alpha: weight of the energy.
        beta: power.
        k: what is added to the energy.
        groups: G, groups of channels that do not see each other, such as AlexNet's towers.

    Shape: x (B, C, H, W) -> (B, C, H, W).

    Raises:
        ValueError: `size` is even.

    Source: Krizhevsky et al. 2012, Section 3.3, with its constants as defaults.
    """

    def __init__(
        self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1
    ) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"`size`={size!r}; expected an odd number of channels, such as 5")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x (B, C, H, W)."""
        energy = x.square().unflatten(1, (self.groups, -1))  # (B, G, C/G, H, W)
        padded = F.pad(energy, (0, 0, 0, 0, self.size // 2, self.size // 2))
        # A sum of shifted copies: half the time of torch's 3-d pooling on a CPU, and it exists in bfloat16.
        total = padded[:, :, : 1 - self.size or None]
        for shift in range(1, self.size):
            total = total + padded[:, :, shift : shift + 1 - self.size or None]
        return x / (self.k + self.alpha * total.flatten(1, 2)).pow(self.beta)

    def extra_repr(self) -> str:
        """Shows the constants in the printed network."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, groups={self.groups}"
