"""What every network of the atlas is and does: the contract that all model files share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from convatlas.blocks.head import equalise_logits

FeatureHook = Callable[[Tensor], Tensor]
"""Sees a feature map on its way through `features` and hands it on."""


def identity(x: Tensor) -> Tensor:
    """The tap that looks at nothing."""
    return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs that every network has; each paper's `Config` adds its own.

    Args:
        num_classes: K; 0 for no classifier.
        in_chans: channels of the input image.
        drop_rate: dropout before the classifier (before each hidden layer of a deeper classifier).
    """

    num_classes: int = 1000
    in_chans: int = 3
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values that every network shares.

        Raises:
            ValueError: a count or a rate is out of its range.
        """
        check_count("num_classes", self.num_classes, least=0)
        check_count("in_chans", self.in_chans, least=1)
        for field in dataclasses.fields(self):
            if field.name.endswith("_rate"):
                check_rate(field.name, getattr(self, field.name))

    def build(self) -> Network[Any]:
        """Makes the network, with parameters not yet initialised as the paper says."""
        raise NotImplementedError(f"{type(self).__name__} does not say which network it builds")


def check_count(name: str, value: object, *, least: int) -> None:
    """Refuses what is not a whole number of at least `least`.

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}`={value!r}; expected a whole number of at least {least}")


def check_rate(name: str, value: object) -> None:
    """Refuses what is not a number in [0, 1).

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise ValueError(f"`{name}`={value!r}; expected a rate of at least 0 and below 1")


class Feature(NamedTuple):
    """One feature map that a network offers.

    Attributes:
        module: path of the module whose output it is, as in `net.get_submodule(module)`.
        channels: C of the map.
        stride: nominal px of the input for each px of the map ("reduction" in timm).
    """

    module: str
    channels: int
    stride: int


class FeatureInfo(tuple[Feature, ...]):
    """The feature maps of a network, shallow to deep, with the accessors that timm's users know."""

    __slots__ = ()

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [feature.channels for feature in self]

    def reduction(self) -> list[int]:
        """Stride of each map, in px."""
        return [feature.stride for feature in self]

    def module_name(self) -> list[str]:
        """Module path of each map."""
        return [feature.module for feature in self]


class AuxLogits(NamedTuple):
    """What a network with auxiliary classifiers answers in training.

    Attributes:
        main: logits of the network's end, (B, K).
        aux: logits of the auxiliary classifiers, shallow to deep, each (B, K); empty where there are none.
    """

    main: Tensor
    aux: tuple[Tensor, ...]


ConfigT = TypeVar("ConfigT", bound=Config)


class Network(nn.Module, Generic[ConfigT]):
    """A network of the atlas: `features`, then `head`.

    A subclass sets `feature_info`, `num_features`, `head_hidden_size`, `min_input_size` and `head`, and
    writes `features` and `init_weights`.

    Attributes:
        config: what it was built from.
        name: name in the registry, or "" when built by hand.
        planned_input_size: px that the model file or plan it was built from is for; None for the published
            size.
        feature_info: the maps that `forward_stages` returns.
        num_features: C of what `forward_features` returns.
        head_hidden_size: width of what `forward_head(x, pre_logits=True)` returns.
        min_input_size: smallest height and width in px that the network accepts.
        transform: brings an image to the tensor that the network was trained on, where that is known.
        class_names: a name for each logit, where that is known.
        aux_heads: auxiliary classifiers with `reset(num_classes)` and `fc`, in networks that have some.
        head: classifier with `reset(num_classes, global_pool)` and, as its last layer, `fc`.
    """

    feature_info: FeatureInfo
    num_features: int
    head_hidden_size: int
    min_input_size: int
    head: nn.Module

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config: ConfigT = config
        self.name = ""
        self.planned_input_size: int | None = None
        self.num_classes = config.num_classes
        self.transform: Callable[[Any], Tensor] | None = None
        self.class_names: tuple[str, ...] = ()

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs everything before the head, showing `tap` each map of `feature_info` in order."""
        raise NotImplementedError(f"{type(self).__name__} has no `features`")

    def init_weights(self, root: nn.Module) -> None:
        """Initialises every parameter and buffer below `root` (the network or a part) as the paper says."""
        raise NotImplementedError(f"{type(self).__name__} has no `init_weights`")

    def place(self) -> None:
        """Moves parts to devices of their own, where the config names some; values are not set yet."""

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits: (B, in_chans, H, W) -> logits (B, K), in training and in evaluation alike.

        Raises:
            ValueError: the input has not four dimensions, the wrong channels, or too few px.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map: (B, in_chans, H, W) -> (B, num_features, H', W').

        Raises:
            ValueError: as `forward`.
        """
        check_input(x, self.name or type(self).__name__, self.config.in_chans, self.min_input_size)
        return self.features(x)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Every map of `feature_info`, shallow to deep.

        Raises:
            ValueError: as `forward`.
        """
        check_input(x, self.name or type(self).__name__, self.config.in_chans, self.min_input_size)
        maps: list[Tensor] = []

        def keep(feature_map: Tensor) -> Tensor:
            maps.append(feature_map)
            return feature_map

        self.features(x, keep)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From the last feature map to logits (B, K), or to (B, head_hidden_size) with `pre_logits`."""
        return self.head(x, pre_logits)

    def forward_aux(self, x: Tensor) -> AuxLogits:
        """Logits of the end and of the auxiliary classifiers, if the network has any."""
        return AuxLogits(self(x), ())

    def set_progress(self, fraction: float) -> None:
        """Tells the network which share of its training is over, 0 to 1; training calls it before each step.

        Networks whose regularisation grows with training, such as NASNet's scheduled drop-path, override it.
        """

    def get_classifier(self) -> nn.Module:
        """The last linear layer (an `nn.Identity` when `num_classes` is 0)."""
        return self.head.get_submodule("fc")

    def classifiers(self) -> tuple[nn.Module, ...]:
        """The head, then the auxiliary classifiers, shallow to deep."""
        aux_heads: Iterable[nn.Module] = getattr(self, "aux_heads", ())
        return (self.head, *aux_heads)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last layer, of auxiliary classifiers too, by a new one that begins at a loss of ln K.

        Args:
            num_classes: K; 0 for no classifier.
            global_pool: new pooling, where the network pools; None keeps the one it has.

        Raises:
            ValueError: a value is out of range.
        """
        check_count("num_classes", num_classes, least=0)
        heads = self.classifiers()
        likes = [
            next(chain(head.get_submodule("fc").parameters(), head.parameters(), self.parameters()))
            for head in heads
        ]
        self.head.reset(num_classes, global_pool)  # pyright: ignore[reportCallIssue]
        for head in heads[1:]:
            head.reset(num_classes)  # pyright: ignore[reportCallIssue]
        self.num_classes = num_classes
        for head, like in zip(heads, likes, strict=True):
            last = head.get_submodule("fc").to(device=like.device, dtype=like.dtype)
            self.init_weights(last.train(self.training))
            equalise_logits(head)


def check_input(x: Tensor, name: str, in_chans: int, min_size: int) -> None:
    """Refuses a batch that the network cannot take.

    Raises:
        ValueError: not four dimensions, the wrong number of channels, or fewer than `min_size` px.
    """
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return  # There, sizes are tensors, and a comparison would be burnt into the trace.
    if x.dim() != 4:
        raise ValueError(f"{name}: expected images of shape (B, {in_chans}, H, W); received {tuple(x.shape)}")
    _, chans, height, width = x.shape
    if chans != in_chans:
        raise ValueError(
            f"{name}: expected {in_chans} channels; received {chans} (shape {tuple(x.shape)}); "
            f"build it with `in_chans={chans}` for such images"
        )
    if height < min_size or width < min_size:
        raise ValueError(
            f"{name}: the input is {height}x{width} px; the smallest size that works is {min_size}x{min_size}"
        )


# A leaf for FX: the check needs real sizes, which exist when the traced graph runs, not while it is traced.
torch.fx.wrap("check_input")


class FeatureExtractor(nn.Module):
    """A network without its head, as a backbone: images in, a list of feature maps out.

    Args:
        net: the network; it is used, not copied, and loses its classifiers.
        out_indices: which maps of `net.feature_info`, negative counting from the end; None for all.

    Attributes:
        feature_info: the maps that come out, in the order of `out_indices`.

    Shape: x (B, C, H, W) -> list of (B, C_i, H_i, W_i).

    Raises:
        ValueError: an index is out of range.
    """

    def __init__(self, net: Network[Any], out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        count = len(net.feature_info)
        if out_indices is not None and not isinstance(out_indices, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"`out_indices`={out_indices!r}; expected a list, such as [{out_indices!r}]")
        chosen = range(count) if out_indices is None else out_indices
        wrong = [i for i in chosen if not -count <= i < count]
        if wrong:
            raise ValueError(
                f"`out_indices`={list(chosen)!r}: {net.name or type(net).__name__} has {count} feature maps, "
                f"so an index lies in {-count}..{count - 1}; received {wrong[0]}"
            )
        self.out_indices = tuple(i % count for i in chosen)
        self.feature_info = FeatureInfo(net.feature_info[i] for i in self.out_indices)
        net.head = nn.Identity()
        if hasattr(net, "aux_heads"):
            net.aux_heads = nn.ModuleList()
        self.net = net

    def forward(self, x: Tensor) -> list[Tensor]:
        """The chosen maps, in the order of `out_indices`."""
        maps = self.net.forward_stages(x)
        return [maps[i] for i in self.out_indices]
