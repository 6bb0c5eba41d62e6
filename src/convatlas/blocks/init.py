"""How papers initialise their weights. Each function works in place, on any device."""

import math
from collections.abc import Callable

from torch import Tensor, nn


def he_normal_(weight: Tensor, mode: str = "fan_in") -> None:
    """N(0, 2 / fan), for layers followed by ReLU.

    Args:
        weight: a convolution's or linear layer's weight.
        mode: "fan_in" (the paper) or "fan_out" (Facebook's and torchvision's ResNets).

    Source: He et al. 2015, "Delving Deep into Rectifiers", Eq. 10 and 14.
    """
    nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")  # pyright: ignore[reportArgumentType]


def lecun_uniform_(weight: Tensor, bound: float = 2.4) -> None:
    """U(-bound / fan_in, bound / fan_in).

    Source: LeCun et al. 1998, Appendix A ("2.4 / F_i").
    """
    fan_in = weight[0].numel()
    nn.init.uniform_(weight, -bound / fan_in, bound / fan_in)


def gaussian_(weight: Tensor, std: float = 0.01) -> None:
    """N(0, std^2): what came before initialisation by fan. AlexNet and ZFNet say 0.01."""
    nn.init.normal_(weight, std=std)


def linear_uniform_(weight: Tensor) -> None:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): torch's own choice for a linear layer's weight."""
    bound = 1.0 / math.sqrt(weight.shape[1])
    nn.init.uniform_(weight, -bound, bound)


def init_layers(
    root: nn.Module,
    *,
    conv: Callable[[Tensor], None],
    linear: Callable[[Tensor], None],
) -> None:
    """Initialises every layer below `root` once; biases become 0.

    Any other layer that owns parameters or buffers (normalisation, a layer of ours) initialises
    itself through its `reset_parameters`.

    Args:
        root: the network, or a part of it.
        conv: initialises the weight of a convolution, in place.
        linear: initialises the weight of a linear layer, in place.
    """
    for layer in root.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            (conv if isinstance(layer, nn.Conv2d) else linear)(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        else:
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()


def xavier_uniform_(weight: Tensor) -> None:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio 2010, Eq. 16.
    """
    nn.init.xavier_uniform_(weight)
