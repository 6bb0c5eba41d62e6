"""From the last feature map to class logits."""

from typing import Literal

import torch
from torch import Tensor, nn

GlobalPool = Literal["avg", "max", ""]
"""How a feature map becomes a vector: the mean or the maximum over H and W; "" keeps the map."""


class ClassifierHead(nn.Module):
    """Global pooling, dropout and one linear layer.

    Args:
        num_features: C, channels of the last feature map.
        num_classes: K; 0 leaves out the linear layer, so that pooled features come out.
        global_pool: "avg", "max", or "" (the map itself comes out; needs `num_classes=0`).
        drop_rate: dropout before the linear layer.

    Shape: x (B, C, H, W) -> (B, K), or (B, C), or (B, C, H, W).

    Raises:
        ValueError: `global_pool` is unknown, or is "" while there are classes.
    """

    def __init__(
        self, num_features: int, num_classes: int, *, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.dropout = nn.Dropout(drop_rate)
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the linear layer by a new one for `num_classes`, and the pooling if one is named."""
        if global_pool is not None:
            self.global_pool = global_pool
        check_global_pool(self.global_pool, num_classes)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Computes the logits of a feature map; with `pre_logits` the pooled features come out instead."""
        x = global_pool_2d(x, self.global_pool)  # (B, C)
        return x if pre_logits else self.fc(self.dropout(x))


def equalise_logits(head: nn.Module) -> None:
    """Sets the last layer of a classifier so that all classes score the same: the loss is ln K.

    A layer that replaces a trained one follows features whose scale no rule of initialisation knows: drawn
    at random, it can begin far above ln K, and its first steps then spoil the trained layers.

    Args:
        head: with its last layer as `fc`, whose parameters become 0; or with a method `equalise_logits`,
            where zeros would not do.
    """
    own = getattr(head, "equalise_logits", None)
    if callable(own):
        own()
        return
    for parameter in head.get_submodule("fc").parameters():
        nn.init.zeros_(parameter)


def global_pool_2d(x: Tensor, kind: str) -> Tensor:
    """Pools x (B, C, H, W) over H and W to (B, C) by `kind`: "avg", "max", or "" for not at all."""
    if kind == "avg":
        return x.mean(dim=(2, 3))
    return torch.amax(x, dim=(2, 3)) if kind == "max" else x


def check_global_pool(kind: str, num_classes: int) -> None:
    """Refuses an unknown pooling, and keeping the map where a classifier would follow.

    Raises:
        ValueError: if a value is not as described above.
    """
    if kind not in ("avg", "max", ""):
        raise ValueError(f'`global_pool`={kind!r}; allowed are "avg", "max" and "" (keep the feature map)')
    if kind == "" and num_classes > 0:
        raise ValueError(
            f'`global_pool`="" keeps the feature map and needs `num_classes`=0; received {num_classes}'
        )
