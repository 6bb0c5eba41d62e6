"""AlexNet: the two towers of 2012, on one device or on two, and the single tower of 2014.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
Section 3.5 and Figure 2 (`alexnet`); Krizhevsky 2014, "One weird trick for parallelizing convolutional
neural networks" (`alexnet_owt`).

| layer  | `alexnet`, each tower   | sees         | `alexnet_owt`   | output, both |
|--------|-------------------------|--------------|-----------------|--------------|
| conv1  | 11x11/4, 48, norm       | image        | 11x11/4, 64     | 55           |
| conv2  | pool, 5x5, 128, norm    | its tower    | pool, 5x5, 192  | 27           |
| conv3  | pool, 3x3, 192          | both towers  | pool, 3x3, 384  | 13           |
| conv4  | 3x3, 192                | its tower    | 3x3, 256        | 13           |
| conv5  | 3x3, 128                | its tower    | 3x3, 256        | 13           |
| fc1    | pool, 2048, dropout     | both towers  | pool, 4096      | 6, then 1    |
| fc2    | 2048, dropout           | both towers  | 4096            | 1            |
| fc     | K                       | both towers  | K               | 1            |

Pooling is 3x3 with stride 2, after the normalisation. On one device the towers are groups; with
`devices=("cuda:0", "cuda:1")` each lives on its own, and only conv3 and the fully connected layers exchange
maps (`SplitAlexNet`). `split_towers` and `join_towers` turn the state dict of one form into the other's.

Departs from paper: `alexnet` takes 227 px; the printed 224 give no whole number of strides (the authors' code
rounded up).
Departs from paper: `alexnet_owt` is torchvision's: without the normalisation that the author's file has after
conv1 and conv2, and with 2 px of padding in conv1 where that file rounds up.
"""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.init import gaussian_, init_layers
from convatlas.blocks.mlp_head import MlpHead, refuse_global_pool
from convatlas.blocks.norm import LocalResponseNorm
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity

HIDDEN = 4096
MAP_SIZE = 6
# Section 5: "neuron biases in the second, fourth, and fifth convolutional layers, as well as in the
# fully-connected hidden layers" start at 1, which gives the ReLUs positive inputs early on.
BIAS_ONE = ("conv2", "conv4", "conv5", "fc1", "fc2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlexNetConfig(Config):
    """The knobs of AlexNet.

    Args:
        widths: filters of each of the five convolutions, of all towers together.
        towers: G, halves that see each other in conv3 and in the fully connected layers only.
        local_norm: local response normalisation after conv1 and conv2, within each tower.
        stem_padding: px around the image.
        drop_rate: dropout in the two hidden layers.
        drop_first: dropout before each hidden layer (2014) instead of after it (2012).
        devices: a device for each tower, such as ("cuda:0", "cuda:1"); None for one device.
    """

    widths: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    towers: int = 2
    local_norm: bool = True
    stem_padding: int = 0
    drop_rate: float = 0.5
    drop_first: bool = False
    devices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Checks that the towers divide the network, and have a device each.

        Raises:
            ValueError: if a value is not as described above.
        """
        super().__post_init__()
        if self.towers < 1 or any(width % self.towers for width in (*self.widths, HIDDEN)):
            raise ValueError(f"`towers`={self.towers!r}; expected a divisor of {self.widths} and of {HIDDEN}")
        if self.devices is not None and (self.towers < 2 or len(self.devices) != self.towers):
            raise ValueError(
                f"`devices`={self.devices!r}; expected one device for each tower, and at least two towers; "
                f"this network has {self.towers}"
            )
        for name in self.devices or ():
            check_device(name)

    def build(self) -> AlexNet | SplitAlexNet:
        """Makes the network, on one device or split."""
        return AlexNet(self) if self.devices is None else SplitAlexNet(self)


def check_device(name: str) -> None:
    """Refuses what does not name a device.

    Raises:
        ValueError: if a value is not as described above.
    """
    try:
        torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'`devices`: {name!r} is no device; expected such as "cuda:0" or "cpu"') from error


class Trunk(nn.Module):
    """The convolutions of some of the towers: all, as groups, or one.

    Args:
        config: the whole network.
        towers: how many of its towers these are.
    """

    def __init__(self, config: AlexNetConfig, towers: int) -> None:
        super().__init__()
        conv = partial(ConvNormAct, norm=None)
        norm = partial(LocalResponseNorm, groups=towers) if config.local_norm else nn.Identity
        c1, c2, c3, c4, c5 = (width * towers // config.towers for width in config.widths)
        seen = config.widths[1]  # conv3 sees the maps of every tower
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=conv(config.in_chans, c1, 11, stride=4, padding=config.stem_padding), norm=norm()
            )
        )
        stage2: OrderedDict[str, nn.Module] = OrderedDict(
            conv2=conv(c1, c2, 5, padding=2, groups=towers), norm=norm()
        )
        stage3: OrderedDict[str, nn.Module] = OrderedDict(
            conv3=conv(seen, c3, 3, padding=1),
            conv4=conv(c3, c4, 3, padding=1, groups=towers),
            conv5=conv(c4, c5, 3, padding=1, groups=towers),
        )
        self.stages = nn.ModuleList([nn.Sequential(stage2), nn.Sequential(stage3)])
        self.pools = nn.ModuleList(nn.MaxPool2d(3, 2) for _ in range(3))


class AlexNetBase(Network[AlexNetConfig]):
    """What both forms share: their sizes, and how they start."""

    def __init__(self, config: AlexNetConfig, feature_modules: Sequence[str]) -> None:
        super().__init__(config)
        c1, c2, _, _, c5 = config.widths
        shapes = zip(feature_modules, (c1, c2, c5, c5), (4, 8, 16, 32), strict=True)
        self.feature_info = FeatureInfo(Feature(*shape) for shape in shapes)
        self.num_features = c5
        self.head_hidden_size = HIDDEN
        # Backwards through three poolings and conv1: 1, 3, 7, 15 px, then 11 + 14 * 4.
        self.min_input_size = 67 - 2 * config.stem_padding

    def init_weights(self, root: nn.Module) -> None:
        """Section 5: N(0, 0.01^2); biases 0, or 1 in the layers that the paper names."""
        init_layers(root, conv=gaussian_, linear=gaussian_)
        inside = {id(parameter) for parameter in root.parameters()}
        for path, parameter in self.named_parameters():
            named = path.endswith("bias") and not set(BIAS_ONE).isdisjoint(path.split("."))
            if named and id(parameter) in inside:
                nn.init.ones_(parameter)


class AlexNet(AlexNetBase):
    """AlexNet on one device, its towers as groups.

    Shape: x (B, 3, H, W) -> logits (B, K).

    Shapes in comments: alexnet.
    """

    def __init__(self, config: AlexNetConfig) -> None:
        super().__init__(config, ("stem", "stages.0", "stages.1", "pools.2"))
        trunk = Trunk(config, config.towers)
        self.stem, self.stages, self.pools = trunk.stem, trunk.stages, trunk.pools
        self.head = MlpHead(
            self.num_features,
            config.num_classes,
            map_size=MAP_SIZE,
            hidden=(HIDDEN, HIDDEN),
            drop_rate=config.drop_rate,
            drop_first=config.drop_first,
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """conv1 to conv5: (B, 3, H, W) -> (B, 256, H', W'), 6 px for 227."""
        x = tap(self.stem(x))  # (B, 96, 55, 55)
        x = tap(self.stages[0](self.pools[0](x)))  # (B, 256, 27, 27)
        x = tap(self.stages[1](self.pools[1](x)))  # (B, 256, 13, 13)
        x = tap(self.pools[2](x))  # (B, 256, 6, 6)
        return x


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters of a module lie."""
    return next(module.parameters()).device


def join_parts(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Puts what the towers hold side by side on `device`: G times (B, C, ...) -> (B, G C, ...)."""
    return torch.cat([part.to(device) for part in parts], dim=1)


class Join(nn.Module):
    """Joins the parts on the device of the first: a named place for `feature_info`."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Joins the parts in the order of the towers."""
        return join_parts(parts, parts[0].device)


class SplitHead(nn.Module):
    """The head of `AlexNet`, each hidden layer shared out among the towers.

    Shape: x (B, C, H, W) -> logits (B, K), on the device of the first tower.
    """

    def __init__(self, config: AlexNetConfig) -> None:
        super().__init__()
        units = HIDDEN // config.towers
        flat = config.widths[-1] * MAP_SIZE**2
        self.pool = nn.AdaptiveAvgPool2d(MAP_SIZE)
        self.towers = nn.ModuleList(
            nn.ModuleDict({"fc1": nn.Linear(flat, units), "fc2": nn.Linear(HIDDEN, units)})
            for _ in range(config.towers)
        )
        self.drop_first = config.drop_first
        self.dropout = nn.Dropout(config.drop_rate)
        self.reset(config.num_classes)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last layer by a new one for `num_classes`.

        Raises:
            ValueError: `global_pool` is given; there is none in this head.
        """
        refuse_global_pool(global_pool)
        self.fc = nn.Linear(HIDDEN, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Computes the logits of a feature map; with `pre_logits` the last hidden layer comes out instead."""
        x = self.pool(x).flatten(1)
        x = self._hidden("fc1", self.dropout(x) if self.drop_first else x)
        x = self._hidden("fc2", self.dropout(x))
        if pre_logits:
            return x
        return self.fc(x if self.drop_first else self.dropout(x))

    def _hidden(self, name: str, x: Tensor) -> Tensor:
        layers = [tower.get_submodule(name) for tower in self.towers]
        return join_parts([F.relu(layer(x.to(device_of(layer)))) for layer in layers], x.device)


class SplitAlexNet(AlexNetBase):
    """AlexNet with each tower on its own device, as the authors trained it.

    Images may lie anywhere; logits and features come out on the device of the first tower. A `tap` sees
    what the towers hold put side by side, an exchange that happens only when somebody looks.

    Shape: x (B, 3, H, W) -> logits (B, K).
    """

    def __init__(self, config: AlexNetConfig) -> None:
        super().__init__(config, [f"joined.{i}" for i in range(4)])
        self.devices = tuple(torch.device(name) for name in config.devices or ())
        self.towers = nn.ModuleList(Trunk(config, 1) for _ in range(config.towers))
        self.joined = nn.ModuleList(Join() for _ in range(4))
        self.head = SplitHead(config)

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """conv1 to conv5: (B, 3, H, W) -> (B, 256, H', W') on the first device."""
        trunks = [tower for tower in self.towers if isinstance(tower, Trunk)]
        parts = [trunk.stem(x.to(device_of(trunk))) for trunk in trunks]
        self._show(0, parts, tap)
        parts = [trunk.stages[0](trunk.pools[0](part)) for trunk, part in zip(trunks, parts, strict=True)]
        self._show(1, parts, tap)
        pooled = [trunk.pools[1](part) for trunk, part in zip(trunks, parts, strict=True)]
        parts = [trunk.stages[1](join_parts(pooled, device_of(trunk))) for trunk in trunks]
        self._show(2, parts, tap)
        parts = [trunk.pools[2](part) for trunk, part in zip(trunks, parts, strict=True)]
        return tap(self.joined[3](parts))

    def _show(self, index: int, parts: Sequence[Tensor], tap: FeatureHook) -> None:
        if tap is not identity:
            tap(self.joined[index](parts))

    def _placement(self) -> list[tuple[nn.Module, torch.device]]:
        """Every part that owns parameters, with its device."""
        parts = [*zip(self.towers, self.devices, strict=True)]
        parts += zip(self.head.get_submodule("towers").children(), self.devices, strict=True)
        return [*parts, (self.get_classifier(), self.devices[0])]

    def place(self) -> None:
        """Gives each tower memory on its own device.

        Raises:
            ValueError: this machine lacks one of the devices.
        """
        for name in self.devices:
            if name.type == "cuda" and (name.index or 0) >= torch.cuda.device_count():
                raise ValueError(
                    f"`devices`={self.config.devices!r}: this machine has {torch.cuda.device_count()} CUDA "
                    f'devices; ("cpu", "cpu") works everywhere'
                )
        for part, place in self._placement():
            part.to_empty(device=place)


def split_towers(state: Mapping[str, Tensor], towers: int = 2) -> dict[str, Tensor]:
    """The state dict of `AlexNet` as one of `SplitAlexNet`.

    Every layer but the last is cut along its outputs, which is where towers part.

    Args:
        state: state dict of the form for one device.
        towers: G.
    """
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("head.fc."):
            split[key] = value
        else:
            split |= {_key_in_tower(key, i): part for i, part in enumerate(value.chunk(towers))}
    return split


def join_towers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `SplitAlexNet` as one of `AlexNet`, on the device of the first tower.

    Args:
        state: state dict of the split form.
    """
    joined: dict[str, list[Tensor]] = {}
    for key, value in state.items():
        joined.setdefault(_key_outside(key), []).append(value)
    return {
        key: torch.cat([part.to(parts[0].device) for part in parts]) if len(parts) > 1 else parts[0]
        for key, parts in joined.items()
    }


def _key_in_tower(key: str, tower: int) -> str:
    if key.startswith("head.hidden."):
        return key.replace("head.hidden.", f"head.towers.{tower}.", 1)
    return f"towers.{tower}.{key}"


def _key_outside(key: str) -> str:
    key = re.sub(r"^head\.towers\.\d+\.", "head.hidden.", key)
    return re.sub(r"^towers\.\d+\.", "", key)


VARIANTS = {
    "alexnet": AlexNetConfig(),
    "alexnet_owt": AlexNetConfig(
        widths=(64, 192, 384, 256, 256), towers=1, local_norm=False, stem_padding=2, drop_first=True
    ),
}
