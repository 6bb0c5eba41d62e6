"""The first network of CS231n: one convolution, one pooling, one fully connected layer.

CS231n, "Convolutional Neural Networks: Architectures, Convolution / Pooling Layers", the example
INPUT (32x32x3) - CONV (32x32x12) - RELU - POOL (16x16x12) - FC (1x1x10). Shapes in comments: convnet_cs231n.

Departs from paper: the notes leave the kernel's size open. Here it is 3x3, and `kernel_size` changes it;
the padding keeps 32x32 px, as the notes print.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.init import he_normal_, init_layers
from convatlas.blocks.mlp_head import MlpHead
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity

FILTERS = 12
MAP_SIZE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(Config):
    """The knob of the toy network.

    Args:
        kernel_size: px of the convolution, an odd number.
    """

    num_classes: int = 10
    kernel_size: int = 3

    def __post_init__(self) -> None:
        """Checks that a symmetric padding can keep the size.

        Raises:
            ValueError: `kernel_size` is no odd whole number.
        """
        super().__post_init__()
        check_count("kernel_size", self.kernel_size, least=1)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"`kernel_size`={self.kernel_size!r}; expected an odd whole number, such as 3 or 5"
            )

    def build(self) -> ToyConvNet:
        """Makes the network."""
        return ToyConvNet(self)


class ToyConvNet(Network[ToyConfig]):
    """CONV, RELU, POOL, FC.

    Shape: x (B, 3, H, W) -> logits (B, K).

    Shapes in comments: convnet_cs231n.
    """

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.stem = ConvNormAct(
            config.in_chans, FILTERS, config.kernel_size, padding=config.kernel_size // 2, norm=None
        )
        self.pool = nn.MaxPool2d(2)
        self.head = MlpHead(
            FILTERS, config.num_classes, map_size=MAP_SIZE, hidden=(), drop_rate=config.drop_rate
        )
        self.feature_info = FeatureInfo([Feature("stem", FILTERS, 1), Feature("pool", FILTERS, 2)])
        self.num_features = FILTERS
        self.head_hidden_size = self.head.hidden_size
        self.min_input_size = 2

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """CONV to POOL: (B, 3, H, W) -> (B, 12, H/2, W/2)."""
        x = tap(self.stem(x))  # (B, 12, H, W)
        x = tap(self.pool(x))  # (B, 12, H/2, W/2)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule, which the same notes recommend for ReLU."""
        init_layers(root, conv=he_normal_, linear=he_normal_)


VARIANTS = {"convnet_cs231n": ToyConfig()}
