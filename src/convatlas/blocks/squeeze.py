"""Squeeze-and-excitation: a map's channels, weighted by what the whole map holds."""

from torch import Tensor, nn

from convatlas.blocks.conv import Act, relu


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a gate computed from the means of all channels.

    Both layers are 1x1 convolutions of a 1x1 map: linear layers that need no reshaping.

    Args:
        chans: C of the map.
        mid_chans: channels between the two layers, C / r in the paper. Never guessed from `chans`.
        act: makes the activation between the two layers.
        gate: makes the activation that ends in the gate.
        bias: whether the two layers have biases.

    Shape: x (B, C, H, W) -> (B, C, H, W).

    Source: Hu et al. 2018, "Squeeze-and-Excitation Networks", Section 3, Eq. 2 to 4.
    """

    def __init__(
        self,
        chans: int,
        mid_chans: int,
        *,
        act: Act = relu,
        gate: Act = nn.Sigmoid,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(chans, mid_chans, 1, bias=bias)
        self.act = act()
        self.expand = nn.Conv2d(mid_chans, chans, 1, bias=bias)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """Weights the channels of x (B, C, H, W)."""
        scale = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        scale = self.expand(self.act(self.reduce(scale)))  # (B, C, 1, 1)
        return x * self.gate(scale)
