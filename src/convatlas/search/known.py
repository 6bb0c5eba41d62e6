"""Published networks as points of the spaces: proof that the builders build what was published."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_NASNET_A = (
    "0.sep5+1.sep3/1.sep5+1.sep3/0.avg3+1.id/1.avg3+1.avg3/0.sep3+0.id>1.2.3.4.5.6"
    "|0.sep5+1.sep7/0.max3+1.sep7/0.avg3+1.sep5/3.id+2.avg3/2.sep3+0.max3>3.4.5.6"
)
_AMOEBANET_A = (
    "0.avg3+0.max3/1.sep3+1.id/0.id+1.avg3/0.sep3+2.sep5/5.avg3+0.sep3>1.3.4.6"
    "|1.sep3+0.avg3/0.max3+2.sep7/1.max3+0.max3/4.sep3+0.conv1x7/1.avg3+0.sep7>2.3.4.5.6"
)
_PNASNET_5 = "1.sep5+1.max3/0.sep7+0.max3/0.sep5+0.sep3/4.sep3+0.max3/1.sep3+0.id>2.3.4.5.6"
_DARTS_V2 = (
    "1.sep3+0.sep3/1.sep3+0.sep3/0.sep3+1.skip/1.skip+2.dilsep3>2.3.4.5"
    "|1.max3+0.max3/2.skip+0.max3/1.max3+2.skip/2.skip+0.max3>2.3.4.5"
)
_ENAS = (
    "1.avg3+1.sep3/1.skip+1.sep5/1.skip+0.sep5/0.sep3+1.sep5/1.avg3+0.sep5"
    "|0.sep3+0.sep3/1.max3+1.avg3/0.sep5+3.sep5/0.sep3+1.skip/1.max3+0.sep5"
)


@dataclasses.dataclass(frozen=True)
class Known:
    """A published network.

    Attributes:
        network: the builder: `cell_cifar`, `cell_imagenet` or `mobile_net`.
        genotype: the text form.
        input_size: px a side that the sizes are for.
        params: parameters as printed, or as others count them exactly.
        macs: multiply-adds as printed, or as others count them exactly; None where nobody printed them.
        source: where the genotype and the sizes are from.
        difference: why ours differ from what was printed; empty where they round to it.
    """

    network: str
    genotype: str
    input_size: int
    params: int
    macs: int | None
    source: str
    difference: str = ""

    def build(self, **options: Any) -> Any:
        """The network, initialised."""
        from convatlas.models.registry import create_model

        return create_model(self.network, genotype=self.genotype, **options)


KNOWN: Mapping[str, Known] = {
    "nasnet_a_cifar": Known(
        "cell_cifar",
        f"{_NASNET_A};cells=6;chans=32;stem_chans=96",
        32,
        3_300_000,
        None,
        "Zoph et al. 2017, Figure 4 and Table 1",
    ),
    "nasnet_a_mobile": Known(
        "cell_imagenet",
        f"{_NASNET_A};cells=4;chans=44;stem_chans=32",
        224,
        5_289_978,
        563_638_816,
        "Zoph et al. 2017, Figure 4; sizes by Keras and TF-slim, printed as 5.3M and 564M",
    ),
    "nasnet_a_large": Known(
        "cell_imagenet",
        f"{_NASNET_A};cells=6;chans=168;stem_chans=96;skip_reduction=1",
        331,
        88_753_150,
        23_783_414_658,
        "Zoph et al. 2017, Figure 4; sizes by timm nasnetalarge, printed as 88.9M and 23.8B",
    ),
    "amoebanet_a_cifar": Known(
        "cell_cifar",
        f"{_AMOEBANET_A};cells=6;chans=36",
        32,
        3_200_000,
        None,
        "Real et al. 2019, Table 1 (N=6, F=36); cells by the authors' code",
    ),
    "amoebanet_a_mobile": Known(
        "cell_imagenet",
        f"{_AMOEBANET_A};cells=4;chans=50;stem_chans=32",
        224,
        5_100_000,
        555_000_000,
        "Real et al. 2019, mobile setting (N=4, F=50); cells by the authors' code",
    ),
    "amoebanet_a_large": Known(
        "cell_imagenet",
        f"{_AMOEBANET_A};cells=6;chans=190;stem_chans=96",
        331,
        86_700_000,
        23_100_000_000,
        "Real et al. 2019, Table 2 (N=6, F=190); cells by the authors' code",
        "1.2 % more multiply-adds than printed: how the stem pads its map of 165 px is not printed",
    ),
    "pnasnet5_mobile": Known(
        "cell_imagenet",
        f"{_PNASNET_5};cells=3;chans=54;stem_chans=32;counts_reduction=1",
        224,
        5_100_000,
        588_000_000,
        "Liu et al. 2018, Table 4 (N=3, F=54)",
    ),
    "pnasnet5_large": Known(
        "cell_imagenet",
        f"{_PNASNET_5};cells=4;chans=216;stem_chans=96;counts_reduction=1",
        331,
        86_057_668,
        25_000_000_000,
        "Liu et al. 2018, Table 5 (N=4, F=216); parameters by timm pnasnet5large, printed as 86.1M",
    ),
    "darts_v2_cifar": Known(
        "cell_cifar",
        f"{_DARTS_V2};cells=6;chans=36;stem=darts",
        32,
        3_349_342,
        None,
        "Liu et al. 2019; the authors' code (20 cells, 36 channels), printed as 3.3M",
    ),
    "darts_v2_imagenet": Known(
        "cell_imagenet",
        f"{_DARTS_V2};cells=4;chans=48;stem=darts",
        224,
        4_700_000,
        574_000_000,
        "Liu et al. 2019, Table 3; the authors' code (14 cells, 48 channels)",
        "8 % fewer multiply-adds than printed: convolutions and the classifier alone are counted here",
    ),
    "enas_micro": Known(
        "cell_cifar",
        f"{_ENAS};cells=5;chans=36;stem=darts",
        32,
        4_600_000,
        None,
        "Pham et al. 2018, Table 1; cells by the authors' script cifar10_micro_final.sh",
        "19 % fewer parameters than printed: the authors' code has a second 1x1 convolution in each cell and "
        "a side classifier, which this builder leaves out",
    ),
    "mobilenet_v2": Known(
        "mobile_net",
        "e1k3d1c16/e6k3d2c24/e6k3d3c32/e6k3d4c64/e6k3d3c96/e6k3d3c160/e6k3d1c320",
        224,
        3_504_872,
        300_774_272,
        "Sandler et al. 2018, Table 2; sizes by torchvision, printed as 3.4M and 300M",
    ),
    "mnasnet_b1": Known(
        "mobile_net",
        "e1k3d1c16/e3k3d3c24/e3k5d3c40/e6k5d3c80/e6k3d2c96/e6k5d4c192/e6k3d1c320;act=relu",
        224,
        4_383_312,
        314_415_872,
        "Tan et al. 2018; sizes by timm mnasnet_100, printed as 4.4M and 315M",
    ),
    "mnasnet_a1": Known(
        "mobile_net",
        "e1k3d1c16/e6k3d2c24/e3k5d3c40s/e6k3d4c80/e6k3d2c112s/e6k5d3c160s/e6k3d1c320;act=relu",
        224,
        3_887_038,
        312_000_000,
        "Tan et al. 2018, Figure 7; parameters by timm semnasnet_100, printed as 3.9M",
    ),
    "efficientnet_b0": Known(
        "mobile_net",
        "e1k3d1c16s/e6k3d2c24s/e6k5d2c40s/e6k3d3c80s/e6k5d3c112s/e6k5d4c192s/e6k3d1c320s;act=silu",
        224,
        5_288_548,
        385_814_752,
        "Tan and Le 2019, Table 1; sizes by torchvision, timm and Keras, printed as 5.3M and 0.39B",
    ),
}
"""Published networks by name."""
