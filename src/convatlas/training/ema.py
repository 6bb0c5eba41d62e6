"""The moving average of the weights, which several papers evaluate instead of the weights themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor, nn

from convatlas.training.recipes.schedules import warmed_decay


class Ema:
    """An exponential moving average of a network's parameters and of its norms' statistics.

    The statistics are averaged with the weights that they belong to, as EfficientNet's authors do. Buffers of
    whole numbers, such as counts, are copied.

    Args:
        net: starts the average, and is what `update` looks at; its tensors must keep their places in memory.
        decay: share of the average that is kept at each step, less at first; see `Recipe.ema_at`.

    Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self._net = net
        self._now = net.state_dict()
        self._average = {name: tensor.clone() for name, tensor in self._now.items()}
        self._moving = [name for name, tensor in self._now.items() if tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the network, after a step, counted from 0."""
        averages = [self._average[name] for name in self._moving]
        share = 1.0 - warmed_decay(self.decay, step)
        news = [self._now[name] for name in self._moving]
        torch._foreach_lerp_(averages, news, share)  # pyright: ignore[reportPrivateImportUsage]
        for name, tensor in self._average.items():
            if not tensor.is_floating_point():
                tensor.copy_(self._now[name])

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """Lends the network the average, for an evaluation, and gives it its own values back."""
        own = {name: tensor.clone() for name, tensor in self._now.items()}
        self._net.load_state_dict(self._average)
        try:
            yield
        finally:
            self._net.load_state_dict(own)

    def state(self) -> dict[str, Tensor]:
        """The average, by the names of the network's `state_dict()`."""
        return dict(self._average)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            ValueError: it is of another network; nothing has changed then.
        """
        _copy_all(self._average, state, "averaged")


class BestWeights:
    """The weights of the epoch that did best so far, with the statistics of norms.

    Args:
        net: whose weights `keep` takes; until then, its weights as they are.
    """

    def __init__(self, net: nn.Module) -> None:
        self._now = net.state_dict()
        self._best = {name: tensor.clone() for name, tensor in self._now.items()}

    def keep(self) -> None:
        """Takes the weights that the network has now."""
        _copy_all(self._best, self._now, "best")

    def state(self) -> dict[str, Tensor]:
        """The weights, by the names of the network's `state_dict()`."""
        return dict(self._best)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            ValueError: it is of another network; nothing has changed then.
        """
        _copy_all(self._best, state, "best")


class Soup:
    """The mean of a network's weights at several moments, all of one weight, with the statistics of norms.

    Args:
        net: whose weights `add` takes.

    Source: Wortsman et al. 2022, "Model soups"; Izmailov et al. 2018, "Averaging Weights Leads to Wider
    Optima and Better Generalization".
    """

    def __init__(self, net: nn.Module) -> None:
        self._now = net.state_dict()
        self._mean = {name: torch.zeros_like(tensor) for name, tensor in self._now.items()}

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Adds the weights that the network has now to those of `count` earlier moments."""
        for name, mean in self._mean.items():
            if mean.is_floating_point():
                mean.lerp_(self._now[name], 1.0 / (count + 1))
            else:
                mean.copy_(self._now[name])

    def state(self) -> dict[str, Tensor]:
        """The mean, by the names of the network's `state_dict()`; zeros before anything was added."""
        return dict(self._mean)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            ValueError: it is of another network; nothing has changed then.
        """
        _copy_all(self._mean, state, "mean")


@torch.no_grad()
def _copy_all(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    wrong = sorted(own.keys() ^ state.keys()) or [
        name for name, tensor in own.items() if tensor.shape != state[name].shape
    ]
    if wrong:
        raise ValueError(
            f"the {what} weights are of another network: {len(wrong)} entries differ, "
            f"the first is {wrong[0]!r}"
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])
