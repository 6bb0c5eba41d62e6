"""FractalNet on CIFAR: very deep without residuals.

Larsson, Maire and Shakhnarovich 2016, "FractalNet: Ultra-Deep Neural Networks without Residuals", Figure 1.
Five blocks of C columns; a column of 2^c convolutions in each block, so that the deepest path has
5 x 2^(C-1) layers: 20 with three columns, 40 with four.

| block | filters | dropout | px after | column 0 | column 1    | column 2                |
|-------|---------|---------|----------|----------|-------------|-------------------------|
| 0     | 64      | 0       | 16       | conv     | conv - conv | conv - conv-conv - conv |
| 1     | 128     | 0.1     | 8        | conv     | conv - conv | conv - conv-conv - conv |
| 2     | 256     | 0.2     | 4        | conv     | conv - conv | conv - conv-conv - conv |
| 3     | 512     | 0.3     | 2        | conv     | conv - conv | conv - conv-conv - conv |
| 4     | 512     | 0.4     | 1        | conv     | conv - conv | conv - conv-conv - conv |

Halfway through a block columns 1 and 2 join; at its end all are pooled and join.

Sizes follow the authors' public generator, not the paper: 33.7 million parameters for 20 layers, where the
literature quotes 38.6 million from the paper. The generator with a fourth column makes `fractalnet40_cifar`,
76.1 million; the 22.9 million quoted for the paper's would need other widths, which the generator has not.

As in the generator, a layer is a convolution with bias, dropout, batch normalisation without scale and bias,
and ReLU, and the columns are pooled before the last join of a block.

Departs from paper: running statistics keep 0.9 of themselves each step, as elsewhere here; Caffe keeps 0.999.
Departs from paper: half of the samples, at random, have global drop-path, each with its own column.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import Tensor, nn

from convatlas.blocks.fractal import FractalBlock
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers
from convatlas.models.network import (
    Config,
    Feature,
    FeatureHook,
    FeatureInfo,
    Network,
    check_count,
    check_rate,
    identity,
)

NUM_BLOCKS = 5


def check_per_block(name: str, values: object) -> None:
    """Refuses what is not a tuple with one entry a block.

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(values, tuple) or len(values) != NUM_BLOCKS:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"`{name}`={values!r}; expected a tuple of {NUM_BLOCKS} numbers, one a block")


def check_share(name: str, value: object) -> None:
    """Refuses what is not a number in [0, 1].

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}`={value!r}; expected a number from 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FractalNetConfig(Config):
    """The knobs of FractalNet.

    Args:
        num_columns: C.
        widths: channels of each of the five blocks.
        block_drop_rates: dropout in each of the five blocks.
        drop_path_rate: local drop-path, the probability that a join drops an input; 0 for no drop-path.
        global_share: share of the samples that have global drop-path instead, in [0, 1].
        norm_affine: normalisation with scale and bias, and convolutions without, as in later libraries.
        global_pool: how the last map becomes a vector, "avg", "max" or ""; it is 1 px for the paper's images.
    """

    num_classes: int = 10
    num_columns: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    block_drop_rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4)
    drop_path_rate: float = 0.15
    global_share: float = 0.5
    norm_affine: bool = False
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks what the blocks are made of.

        Raises:
            ValueError: a value is out of its range, or there is not one for each block.
        """
        super().__post_init__()
        check_count("num_columns", self.num_columns, least=1)
        check_per_block("widths", self.widths)
        check_per_block("block_drop_rates", self.block_drop_rates)
        for width in self.widths:
            check_count("widths", width, least=1)
        for rate in self.block_drop_rates:
            check_rate("block_drop_rates", rate)
        check_share("global_share", self.global_share)

    def build(self) -> FractalNet:
        """Makes the network."""
        return FractalNet(self)


class FractalNet(Network[FractalNetConfig]):
    """Five fractal blocks and a linear classifier.

    Shape: x (B, C, H, W) of at least 32 px -> logits (B, K).

    Shapes in comments: fractalnet20_cifar.
    """

    def __init__(self, config: FractalNetConfig) -> None:
        super().__init__(config)
        self.feature_info = make_feature_info(config)
        self.num_features = self.head_hidden_size = config.widths[-1]
        self.min_input_size = 2**NUM_BLOCKS
        self.stages = nn.ModuleList(
            FractalBlock(
                in_chans,
                out_chans,
                config.num_columns,
                drop_rate=drop_rate,
                drop_path_rate=config.drop_path_rate,
                norm=partial(nn.BatchNorm2d, affine=config.norm_affine),
                bias=not config.norm_affine,
            )
            for in_chans, out_chans, drop_rate in zip(
                (config.in_chans, *config.widths[:-1]), config.widths, config.block_drop_rates, strict=True
            )
        )
        self.head = ClassifierHead(
            self.num_features,
            config.num_classes,
            global_pool=config.global_pool,
            drop_rate=config.drop_rate,
        )

    def choose_columns(self, x: Tensor) -> Tensor | None:
        """Draws drop-path for a batch: for each sample a column, or -1 for local drop-path, (B,).

        None where there is no drop-path: in evaluation, with one column, or at a rate of 0.
        """
        config = self.config
        if not self.training or config.drop_path_rate == 0.0 or config.num_columns == 1:
            return None
        uniforms = x.new_empty((2, x.shape[0]), dtype=torch.float32).uniform_()
        column = (uniforms[0] * config.num_columns).long().clamp(max=config.num_columns - 1)
        return torch.where(uniforms[1] < config.global_share, column, -1)

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the blocks; while training, with one draw of global drop-path for all of them."""
        chosen = self.choose_columns(x)
        x = tap(self.stages[0](x, chosen))  # (B, 64, H/2, W/2)
        x = tap(self.stages[1](x, chosen))  # (B, 128, H/4, W/4)
        x = tap(self.stages[2](x, chosen))  # (B, 256, H/8, W/8)
        x = tap(self.stages[3](x, chosen))  # (B, 512, H/16, W/16)
        x = tap(self.stages[4](x, chosen))  # (B, 512, H/32, W/32)
        return x

    def column(self, index: int) -> FractalColumn:
        """One column as a plain network that shares its weights, for tests or to train on alone.

        Args:
            index: 0 for the shallowest, with one convolution a block; negative counts from the deepest.

        Raises:
            ValueError: there is no such column.
        """
        count = self.config.num_columns
        if not -count <= index < count:
            raise ValueError(f"`index`={index!r}; expected a column in {-count}..{count - 1}")
        column = FractalColumn(self, index % count)
        return column.train(self.training)

    def init_weights(self, root: nn.Module) -> None:
        """U(-a, a) with a = sqrt(3 / fan_in), which Caffe, and so the authors' generator, calls Xavier's."""
        init_layers(root, conv=caffe_xavier_, linear=caffe_xavier_)


class FractalColumn(Network[FractalNetConfig]):
    """One column of a FractalNet: a plain network of the same layers, not a copy of them.

    Args:
        net: the network.
        index: the column, from 0.

    Shape: x (B, C, H, W) of at least 32 px -> logits (B, K).
    """

    def __init__(self, net: FractalNet, index: int) -> None:
        super().__init__(net.config)
        self.name = f"{net.name}.column({index})"
        self.feature_info = net.feature_info
        self.num_features = net.num_features
        self.head_hidden_size = net.head_hidden_size
        self.min_input_size = net.min_input_size
        self.num_classes = net.num_classes
        self.stages = nn.ModuleList(
            block.column(index) for block in net.stages if isinstance(block, FractalBlock)
        )
        self.head = net.head

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the column."""
        for stage in self.stages:
            x = tap(stage(x))
        return x

    def init_weights(self, root: nn.Module) -> None:
        """As the whole network."""
        init_layers(root, conv=caffe_xavier_, linear=caffe_xavier_)


def make_feature_info(config: FractalNetConfig) -> FeatureInfo:
    """The map behind each block."""
    return FeatureInfo(Feature(f"stages.{i}", c, 2 ** (i + 1)) for i, c in enumerate(config.widths))


def caffe_xavier_(weight: Tensor) -> None:
    """U(-a, a) with a = sqrt(3 / fan_in): Caffe's filler of Xavier's name, which counts a layer's inputs."""
    nn.init.kaiming_uniform_(weight, nonlinearity="linear")


VARIANTS = {
    "fractalnet20_cifar": FractalNetConfig(num_columns=3),
    "fractalnet40_cifar": FractalNetConfig(num_columns=4),
}
