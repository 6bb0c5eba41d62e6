"""Stochastic depth: dropping whole paths, sample by sample."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes the residual branch of a random subset of samples while training.

    A kept sample is divided by the probability of being kept, so that the expected value is the
    same as at test time, where this is the identity.

    Args:
        drop_rate: probability in [0, 1) that a sample's branch is dropped.

    Shape: x (B, C, H, W) -> (B, C, H, W).

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", Section 3; the rescaled form
    is that of EfficientNet's "drop connect".
    """

    def __init__(self, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        """Drops samples of x (B, C, H, W)."""
        if self.drop_rate == 0.0 or not self.training:
            return x
        keep_rate = 1.0 - self.drop_rate
        mask = x.new_empty([x.shape[0], 1, 1, 1]).bernoulli_(keep_rate)
        return x * mask.div_(keep_rate)

    def extra_repr(self) -> str:
        """Shows the rate in the printed network."""
        return f"drop_rate={self.drop_rate}"


def linear_drop_rates(last_rate: float, num_blocks: int) -> list[float]:
    """Rates that rise linearly with depth, from 0 for the first block to `last_rate` for the last.

    Args:
        last_rate: rate of the last block.
        num_blocks: number of residual blocks in the network.
    """
    return [last_rate * i / max(1, num_blocks - 1) for i in range(num_blocks)]
