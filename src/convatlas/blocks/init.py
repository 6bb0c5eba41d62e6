"""How papers initialise their weights. Each function works in place, on any device."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


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


def truncated_normal_(weight: Tensor, std: float) -> None:
    """N(0, std^2) without what lies beyond two deviations, as TensorFlow draws it.

    By the inverse of the distribution: torch's own function draws again what falls outside, and takes five
    times as long.
    """
    bound = math.erf(math.sqrt(2.0))
    nn.init.uniform_(weight, -bound, bound)
    with torch.no_grad():
        weight.erfinv_().mul_(std * math.sqrt(2.0)).clamp_(-2.0 * std, 2.0 * std)


def linear_uniform_(weight: Tensor) -> None:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): torch's own choice for a linear layer's weight."""
    bound = 1.0 / math.sqrt(weight.shape[1])
    nn.init.uniform_(weight, -bound, bound)


def init_layers(
    root: nn.Module,
    *,
    conv: Callable[[Tensor], object],
    linear: Callable[[Tensor], object],
) -> None:
    """Initialises every layer below `root` once; biases become 0.

    Any other layer that owns parameters or buffers (normalisation, a layer of convatlas) initialises
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


class UninitialisedMode(TorchFunctionMode):
    """While this is entered, layers are made without filling their parameters and buffers.

    A network sets every one of them in its `init_weights`, and so saves the time in which torch's layers
    would initialise themselves before that.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Leaves out what only fills a tensor; runs everything else."""
        if func in _FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


_FILLS = frozenset(
    [
        nn.init.constant_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        Tensor.fill_,
        Tensor.normal_,
        Tensor.uniform_,
        Tensor.zero_,
    ]
)
