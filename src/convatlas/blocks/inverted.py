"""Inverted residuals: narrow between blocks, wide and depthwise inside; and TensorFlow's "SAME" padding."""

import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import Act, ConvNormAct, Norm, relu6
from convatlas.blocks.drop import DropPath
from convatlas.blocks.residual import Squeeze


class SamePad(nn.Module):
    """Pads as TensorFlow's "SAME" does: the output has H/stride px, rounded up, and an odd px goes last.

    At stride 1 that is symmetric. At stride 2 and an even H there is one px less at the top and left than
    symmetric padding has, so that each window lies one px further down and right.

    Args:
        kernel_size: px of the convolution that follows, at least its stride.
        stride: px of the convolution that follows.

    Shape: x (B, C, H, W) -> (B, C, H', W').
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Pads x (B, C, H, W)."""
        # (ceil(H / s) - 1) * s + k - H, written without a rounding that a tracer could not follow.
        rows = self.kernel_size - self.stride + -x.shape[2] % self.stride
        columns = self.kernel_size - self.stride + -x.shape[3] % self.stride
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))

    def extra_repr(self) -> str:
        """Shows the sizes in the printed network."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise, perhaps a gate, 1x1 to fewer without activation; added to the input.

    The sum is there where stride is 1 and the channels are the same. Without expansion the first
    convolution is left out.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel_size: px of the depthwise convolution, odd.
        stride: px, of the depthwise convolution.
        expansion: t, how many times as many channels there are inside.
        norm: makes each normalisation.
        act: makes each activation.
        squeeze: makes the gate behind the depthwise convolution; None for none.
        same_padding: pad a convolution that strides as TensorFlow's "SAME", not symmetrically.
        drop_path_rate: probability that a sample's branch is dropped while training.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride), rounded up.

    Source: Sandler et al. 2018, "MobileNetV2", Table 1 and Figure 4(d); with a gate: Tan and Le 2019,
    "EfficientNet" (MBConv).
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        expansion: int = 6,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu6,
        squeeze: Squeeze | None = None,
        same_padding: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        mid_chans = in_chans * expansion
        pads = same_padding and stride > 1
        self.is_residual = stride == 1 and in_chans == out_chans
        self.expand = ConvNormAct(in_chans, mid_chans, 1, norm=norm, act=act) if expansion != 1 else None
        self.pad = SamePad(kernel_size, stride) if pads else None
        self.depthwise = ConvNormAct(
            mid_chans,
            mid_chans,
            kernel_size,
            stride=stride,
            padding=0 if pads else kernel_size // 2,
            groups=mid_chans,
            norm=norm,
            act=act,
        )
        self.squeeze = squeeze(mid_chans) if squeeze is not None else None
        self.project = ConvNormAct(mid_chans, out_chans, 1, norm=norm, act=None)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the branch on x (B, in_chans, H, W), and adds x where the shapes agree."""
        y = self.expand(x) if self.expand is not None else x
        y = self.depthwise(self.pad(y) if self.pad is not None else y)
        if self.squeeze is not None:
            y = self.squeeze(y)
        y = self.project(y)
        return x + self.drop_path(y) if self.is_residual else y


def zero_last_projections(root: nn.Module) -> None:
    """Sets to 0 the scale of the norm that ends each residual branch, so that a block begins as the identity.

    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD", Section 5.1.
    """
    for block in root.modules():
        if isinstance(block, InvertedResidual) and block.is_residual:
            nn.init.zeros_(block.project.get_submodule("norm").get_parameter("weight"))
