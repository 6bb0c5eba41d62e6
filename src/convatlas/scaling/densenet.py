"""The costs of a DenseNet in closed form: each layer sees more channels than the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convatlas.models.network import Config


def densenet_costs(config: Config, input_size: int) -> tuple[int, int] | None:
    """Parameters and MACs of a DenseNet; None for other networks.

    Args:
        config: of the network.
        input_size: height and width of the image, px.

    Source: Huang et al. 2016, "Densely Connected Convolutional Networks", Section 3 and Table 1.
    """
    from convatlas.models.densenet import DenseNetConfig

    if not isinstance(config, DenseNetConfig):
        return None
    growth, chans = config.scaled_growth, config.scaled_stem_chans
    if config.stem_stride > 1:
        px = _strided(input_size, 7, 3)
        params, macs = config.in_chans * chans * 49 + 2 * chans, config.in_chans * chans * 49 * px**2
        px = _strided(px, 3, 1)
    else:
        px, params = input_size, config.in_chans * chans * 9
        macs = params * px**2
    for i, depth in enumerate(config.stage_depths):
        if i > 0:
            kept = int(chans * config.compression)
            params += 2 * chans + chans * kept
            macs += chans * kept * px**2
            chans, px = kept, px // 2
        # Sum of the channels that the layers see: c, c + k, c + 2k, ...
        seen = depth * chans + growth * depth * (depth - 1) // 2
        if config.bottleneck:
            wide = 4 * growth
            weights = seen * wide + depth * wide * growth * 9
            params += 2 * seen + 2 * depth * wide + weights
        else:
            weights = seen * growth * 9
            params += 2 * seen + weights
        macs += weights * px**2
        chans += depth * growth
    classes = config.num_classes
    return params + 2 * chans + chans * classes + classes, macs + chans * classes


def _strided(px: int, kernel: int, padding: int) -> int:
    """Output px of a window that strides by 2."""
    return (px + 2 * padding - kernel) // 2 + 1
