"""The classifier of the networks before global average pooling: fully connected layers."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


class MlpHead(nn.Module):
    """A feature map, flattened, through hidden fully connected layers with ReLU to class logits.

    The hidden layers are `hidden.fc1`, `hidden.fc2`, ...; the last layer is `fc`.

    Departs from paper: the map is averaged to `map_size` first. That changes nothing at the paper's input
    size, and lets the network take any other.

    Args:
        in_chans: C of the feature map.
        num_classes: K; 0 leaves out the last layer, so that the last hidden layer comes out.
        map_size: height and width in px that the first layer is made for.
        hidden: units of each hidden layer; empty for a linear classifier.
        drop_rate: dropout after each hidden layer, or after the flattening where there is none.
        drop_first: dropout before each hidden layer instead, so that the last layer has none.

    Shape: x (B, C, H, W) -> (B, K).
    """

    def __init__(
        self,
        in_chans: int,
        num_classes: int,
        *,
        map_size: int,
        hidden: Sequence[int] = (4096, 4096),
        drop_rate: float = 0.5,
        drop_first: bool = False,
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(map_size)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        units = in_chans * map_size**2
        for i, width in enumerate(hidden, start=1):
            if drop_first or i > 1:
                layers[f"dropout{i}"] = nn.Dropout(drop_rate)
            layers[f"fc{i}"] = nn.Linear(units, width)
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
            units = width
        self.hidden = nn.Sequential(layers)
        self.dropout = nn.Dropout(0.0 if drop_first else drop_rate)
        self.hidden_size = units
        self.reset(num_classes)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last layer by a new one for `num_classes`.

        Raises:
            ValueError: `global_pool` is given; there is none in this head.
        """
        refuse_global_pool(global_pool)
        self.fc = nn.Linear(self.hidden_size, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Computes the logits of a feature map; with `pre_logits` the last hidden layer comes out instead."""
        x = self.hidden(self.pool(x).flatten(1))
        return x if pre_logits else self.fc(self.dropout(x))


def refuse_global_pool(global_pool: str | None) -> None:
    """Refuses to choose a global pooling for a head that flattens.

    Raises:
        ValueError: if a value is not as described above.
    """
    if global_pool is not None:
        raise ValueError(f"`global_pool`={global_pool!r}: this head flattens its map, without global pooling")
