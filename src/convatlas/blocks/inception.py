"""Inception modules: parallel branches of one input, concatenated along the channels."""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import Act, ConvNormAct, Norm, relu
from convatlas.blocks.drop import DropPath

batch_norm: Norm = partial(nn.BatchNorm2d, eps=1e-3)
"""The epsilon of Google's release (TF-slim), torchvision and timm.

TF-slim averages statistics by a factor of 0.9997, too slow for short runs; here it is torch's 0.9.
"""


@dataclasses.dataclass(frozen=True)
class Conv:
    """A row of an Inception table: one convolution, with its normalisation and activation.

    Attributes:
        chans: channels of the output.
        kernel_size: px, or (height, width).
        stride: px.
        padding: px on each side, or (vertical, horizontal).
    """

    chans: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    padding: int | tuple[int, int] = 0


class Branch(nn.Sequential):
    """Convolutions and poolings, one after another.

    Args:
        in_chans: channels of the input.
        layers: each a `Conv`, or a ready module; what has no `out_chans` of its own keeps the channels.
        norm: makes the normalisation of each convolution; None for none.
        bias: whether convolutions have biases; None for "when there is no normalisation".

    Attributes:
        out_chans: channels of the output.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H', W').
    """

    def __init__(
        self,
        in_chans: int,
        *layers: Conv | nn.Module,
        norm: Norm | None = batch_norm,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            if isinstance(layer, Conv):
                module: nn.Module = ConvNormAct(
                    in_chans,
                    layer.chans,
                    layer.kernel_size,
                    stride=layer.stride,
                    padding=layer.padding,
                    norm=norm,
                    bias=bias,
                )
                in_chans = layer.chans
            else:
                module = layer
                if isinstance(layer, Branch | InceptionMix):
                    in_chans = layer.out_chans
            self.add_module(str(i), module)
        self.out_chans = in_chans


class InceptionMix(nn.ModuleDict):
    """Runs named branches on the same input and concatenates what comes out, in the order given.

    Args:
        branches: by name.

    Attributes:
        out_chans: channels of the output, the sum over the branches.

    Shape: x (B, C, H, W) -> (B, out_chans, H', W').

    Source: Szegedy et al. 2014, "Going Deeper with Convolutions", Figure 2.
    """

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        super().__init__(branches)
        self.out_chans = sum(branch.out_chans for branch in branches.values())

    def forward(self, x: Tensor) -> Tensor:
        """Runs every branch on x (B, C, H, W)."""
        return torch.cat([branch(x) for branch in self.values()], dim=1)


class InceptionResidual(nn.Module):
    """An Inception module whose output, made linear and scaled down, is added to its input.

    A 1x1 convolution with a bias and neither normalisation nor activation brings the branches back to the
    input's channels.

    Args:
        in_chans: C.
        mix: the branches.
        scale: what the branch is multiplied by, 0.1 to 0.3 in the paper.
        act: makes the activation after the sum; None for none.
        drop_path_rate: probability that a sample's branch is dropped while training.

    Shape: x (B, C, H, W) -> (B, C, H, W).

    Source: Szegedy et al. 2016, "Inception-v4, Inception-ResNet ...", Figures 10 to 20 and Section 3.3.
    """

    def __init__(
        self,
        in_chans: int,
        mix: InceptionMix,
        *,
        scale: float,
        act: Act | None = relu,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.mix = mix
        self.project = nn.Conv2d(mix.out_chans, in_chans, 1)
        self.drop_path = DropPath(drop_path_rate)
        self.act = act() if act is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Adds the scaled branch of x (B, C, H, W) to it."""
        x = x + self.scale * self.drop_path(self.project(self.mix(x)))
        return x if self.act is None else self.act(x)

    def extra_repr(self) -> str:
        """Shows the scale in the printed network."""
        return f"scale={self.scale}"


class AuxHead(nn.Module):
    """A side classifier, which is trained with the network and not used afterwards.

    Args:
        body: from the feature map to a vector, (B, C, H, W) -> (B, num_features).
        num_features: width of that vector.
        num_classes: K; 0 leaves out the linear layer, so that the vector comes out.

    Shape: x (B, C, H, W) -> (B, K).

    Source: Szegedy et al. 2014, Section 5.
    """

    def __init__(self, body: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.num_features = num_features
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replaces the linear layer by a new one for `num_classes`, where the old one was."""
        like = next(self.parameters(), None)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()
        if like is not None:
            self.fc.to(device=like.device, dtype=like.dtype).train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Logits x (B, C, H, W)."""
        return self.fc(self.body(x))


def he_uniform_(weight: Tensor) -> None:
    """U(-a, a) of variance 2 / fan_in: the variance that TF-slim's Inceptions give to convolutions.

    Departs from paper: TF-slim draws from a truncated normal distribution; no paper of the family says.

    Source: TF-slim, `inception_utils.inception_arg_scope`.
    """
    bound = math.sqrt(6.0 / weight[0].numel())
    nn.init.uniform_(weight, -bound, bound)
