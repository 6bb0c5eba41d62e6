"""Pre-activation residual blocks: normalisation and activation come before each convolution."""

from torch import Tensor, nn

from convatlas.blocks.conv import Act, Norm, relu
from convatlas.blocks.drop import DropPath
from convatlas.blocks.residual import StrideOn, check_stride_on


class NormAct(nn.Sequential):
    """A normalisation, then an activation. The children are named `norm` and `act`.

    Args:
        chans: C of the map.
        norm: makes the normalisation from a number of channels.
        act: makes the activation.

    Shape: x (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, chans: int, *, norm: Norm = nn.BatchNorm2d, act: Act = relu) -> None:
        super().__init__()
        self.norm = norm(chans)
        self.act = act()


class PreActBasicBlock(nn.Module):
    """Twice a normalisation, an activation and a 3x3 convolution, added to the shortcut.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        shortcut: the other path, for example from `make_shortcut` with `norm=None`.
        stride: px, of the first convolution.
        preact: whether the block begins with a normalisation and an activation.
        shared: whether that activation comes before the paths split, so that the shortcut has it too.
        norm: makes each normalisation.
        act: makes each activation.
        drop_rate: dropout before the second convolution, as in wide residual networks.
        drop_path_rate: probability that a sample's branch is dropped while training.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride).

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", Figure 4(e).
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        shortcut: nn.Module,
        *,
        stride: int = 1,
        preact: bool = True,
        shared: bool = False,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.shared = shared
        self.preact1 = NormAct(in_chans, norm=norm, act=act) if preact else nn.Identity()
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, stride=stride, padding=1, bias=False)
        self.preact2 = NormAct(out_chans, norm=norm, act=act)
        self.dropout = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.drop_path = DropPath(drop_path_rate)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        y = self.preact1(x)
        shortcut = self.shortcut(y if self.shared else x)
        y = self.conv1(y)
        y = self.conv2(self.dropout(self.preact2(y)))
        return self.drop_path(y) + shortcut


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each after a normalisation and an activation, added to the shortcut.

    Args:
        in_chans: channels of the input.
        mid_chans: channels of the 3x3 convolution.
        out_chans: channels of the output.
        shortcut: the other path, for example from `make_shortcut` with `norm=None`.
        stride: px.
        stride_on: the convolution that strides.
        preact: whether the block begins with a normalisation and an activation.
        shared: whether that activation comes before the paths split, so that the shortcut has it too.
        norm: makes each normalisation.
        act: makes each activation.
        drop_path_rate: probability that a sample's branch is dropped while training.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride).

    Raises:
        ValueError: `stride_on` is unknown.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", Section 4.1.
    """

    def __init__(
        self,
        in_chans: int,
        mid_chans: int,
        out_chans: int,
        shortcut: nn.Module,
        *,
        stride: int = 1,
        stride_on: StrideOn = "3x3",
        preact: bool = True,
        shared: bool = False,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_stride_on(stride_on)
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.shared = shared
        self.preact1 = NormAct(in_chans, norm=norm, act=act) if preact else nn.Identity()
        self.conv1 = nn.Conv2d(in_chans, mid_chans, 1, stride=first, bias=False)
        self.preact2 = NormAct(mid_chans, norm=norm, act=act)
        self.conv2 = nn.Conv2d(mid_chans, mid_chans, 3, stride=second, padding=1, bias=False)
        self.preact3 = NormAct(mid_chans, norm=norm, act=act)
        self.conv3 = nn.Conv2d(mid_chans, out_chans, 1, bias=False)
        self.drop_path = DropPath(drop_path_rate)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        y = self.preact1(x)
        shortcut = self.shortcut(y if self.shared else x)
        y = self.conv2(self.preact2(self.conv1(y)))
        y = self.conv3(self.preact3(y))
        return self.drop_path(y) + shortcut


def zero_last_convs(root: nn.Module) -> None:
    """Sets to 0 the convolution that ends each residual branch, so that a block begins as its shortcut.

    A pre-activation branch has no normalisation at its end whose scale could be 0 instead.

    Source: the idea is Goyal et al. 2017, "Accurate, Large Minibatch SGD", Section 5.1.
    """
    for block in root.modules():
        if isinstance(block, PreActBasicBlock):
            nn.init.zeros_(block.conv2.weight)
        elif isinstance(block, PreActBottleneck):
            nn.init.zeros_(block.conv3.weight)
