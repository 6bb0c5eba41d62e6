"""Dense connectivity: each layer sees the maps of all layers before it."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convatlas.blocks.conv import Act, Norm, relu
from convatlas.blocks.preact import NormAct


class DenseLayer(nn.Module):
    """H_l: what a dense block repeats; it makes `growth` new channels from all maps before it.

    Normalisation, activation and a 3x3 convolution; with a bottleneck, the same with a 1x1 one before.

    Args:
        in_chans: channels of all maps before it together.
        growth: k, channels that it makes.
        bottleneck_chans: channels that the 1x1 convolution makes, 4k in the paper; None for no bottleneck.
        drop_rate: dropout after each convolution.
        norm: makes each normalisation.
        act: makes each activation.
        memory_efficient: while training, keep neither the joined maps nor their normalised copy, but make
            them once more when the gradient needs them. Gradients and statistics are the same.

    Shape: maps, each (B, C_i, H, W) -> (B, growth, H, W).

    Source: Huang et al. 2016, "Densely Connected Convolutional Networks", Section 3; memory: Pleiss et al.
    2017, "Memory-Efficient Implementation of DenseNets".
    """

    def __init__(
        self,
        in_chans: int,
        growth: int,
        *,
        bottleneck_chans: int | None = None,
        drop_rate: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        self.memory_efficient = memory_efficient
        self.has_bottleneck = bottleneck_chans is not None
        self.preact1 = NormAct(in_chans, norm=norm, act=act)
        if bottleneck_chans is None:
            self.conv1 = nn.Conv2d(in_chans, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_chans, bottleneck_chans, 1, bias=False)
            self.preact2 = NormAct(bottleneck_chans, norm=norm, act=act)
            self.conv2 = nn.Conv2d(bottleneck_chans, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Makes (B, growth, H, W) from the maps before it."""
        # A compiler decides for itself what to keep and what to make again.
        if self.memory_efficient and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            x: Tensor = checkpoint(
                self.join,
                *maps,
                use_reentrant=False,
                preserve_rng_state=False,  # Nothing in `join` is random.
                context_fn=self._contexts,
            )
        else:
            x = self.join(*maps)
        x = self.dropout(x)
        return self.dropout(self.conv2(self.preact2(x))) if self.has_bottleneck else x

    def join(self, *maps: Tensor) -> Tensor:
        """Concatenates the maps and runs the first convolution over them."""
        return self.conv1(self.preact1(torch.cat(maps, dim=1)))

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What `join` runs in, the first time and the second."""
        return nullcontext(), frozen_statistics(self.preact1)


@contextmanager
def frozen_statistics(root: nn.Module) -> Generator[None]:
    """Lets batch normalisation below `root` use a batch's statistics without counting the batch again."""
    norms = [layer for layer in root.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Not `track_running_stats`: checkpointing needs the same tensors to be saved as the first time.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


class DenseBlock(nn.ModuleDict):
    """Layers that each see the block's input and what all layers before them made.

    The children are named `layer1`, `layer2` and so on, as the paper counts them.

    Args:
        in_chans: channels of the input.
        depth: number of layers.
        growth: k, channels that each layer makes.
        bottleneck_chans: channels inside each layer; None for no bottleneck.
        drop_rate: dropout after each convolution.
        norm: makes each normalisation.
        act: makes each activation.
        memory_efficient: as `DenseLayer`.

    Shape: x (B, in_chans, H, W) -> (B, in_chans + depth * growth, H, W).

    Source: Huang et al. 2016, Figure 1.
    """

    def __init__(
        self,
        in_chans: int,
        depth: int,
        growth: int,
        *,
        bottleneck_chans: int | None = None,
        drop_rate: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        for i in range(depth):
            self[f"layer{i + 1}"] = DenseLayer(
                in_chans + i * growth,
                growth,
                bottleneck_chans=bottleneck_chans,
                drop_rate=drop_rate,
                norm=norm,
                act=act,
                memory_efficient=memory_efficient,
            )

    def forward(self, x: Tensor) -> Tensor:
        """Joins x (B, in_chans, H, W) and all that the layers make of it."""
        maps = [x]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, dim=1)


class Transition(nn.Sequential):
    """Between two dense blocks: normalisation, activation, 1x1 convolution, 2x2 average pooling.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        drop_rate: dropout after the convolution.
        norm: makes the normalisation.
        act: makes the activation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/2, W/2), rounded down.

    Source: Huang et al. 2016, Section 3, "Pooling layers" and "Compression".
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        drop_rate: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
    ) -> None:
        super().__init__()
        self.preact = NormAct(in_chans, norm=norm, act=act)
        self.conv = nn.Conv2d(in_chans, out_chans, 1, bias=False)
        self.dropout = nn.Dropout(drop_rate)
        self.pool = nn.AvgPool2d(2, stride=2)
