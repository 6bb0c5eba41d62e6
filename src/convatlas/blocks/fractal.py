"""Fractal blocks: columns of convolutions that meet in joins, and drop-path over what is joined."""

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import Act, Norm, relu


class DropConvNormAct(nn.Sequential):
    """A 3x3 convolution, dropout, normalisation and activation, in that order.

    The children are named `conv`, `dropout`, `norm` and `act`.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        drop_rate: dropout after the convolution.
        norm: makes the normalisation.
        act: makes the activation.
        bias: whether the convolution has a bias.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H, W).

    Source: the authors' generator, `globals.crox`.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        drop_rate: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=bias)
        self.dropout = nn.Dropout(drop_rate)
        self.norm = norm(out_chans)
        self.act = act()


class FractalJoin(nn.Module):
    """The mean of the columns that meet; while training, of those that drop-path leaves.

    A sample's local drop-path drops each input with probability `drop_rate` and, if none is left, keeps one
    at random. Its global drop-path keeps one column, the same in every join of the network.

    Args:
        columns: which columns of the block meet, shallow to deep, without a gap.
        drop_rate: probability in [0, 1) of local drop-path.

    Shape: each of the paths (B, C, H, W) -> (B, C, H, W).

    Source: Larsson et al. 2016, "FractalNet", Section 3.1 and the authors' `FractalJoin` layer.
    """

    def __init__(self, columns: range, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.columns = columns
        self.drop_rate = drop_rate

    def forward(self, paths: list[Tensor], chosen: Tensor | None = None) -> Tensor:
        """Joins the paths, one of each column.

        Args:
            paths: the maps that meet, each (B, C, H, W).
            chosen: for each sample the column of global drop-path, or -1 for local drop-path, (B,);
                None for no drop-path.
        """
        num_paths = len(paths)
        if chosen is None:
            total = paths[0]
            for path in paths[1:]:
                total = total + path
            return total / num_paths
        weights = self.sample(paths[0], chosen).to(paths[0].dtype)[:, :, None, None, None]
        total = paths[0] * weights[0]
        for i in range(1, num_paths):
            total = total + paths[i] * weights[i]
        return total

    def sample(self, like: Tensor, chosen: Tensor) -> Tensor:
        """Draws what each path counts for each sample, (P, B); the P weights of a sample sum to 1.

        Args:
            like: a map (B, ...) on the right device.
            chosen: as in `forward`.
        """
        num_paths = len(self.columns)
        # A sample's largest draw decides which path survives when all fall.
        draws = like.new_empty((num_paths, like.shape[0]), dtype=torch.float32).uniform_()
        local = (draws >= self.drop_rate) | (draws == draws.amax(dim=0))
        path = torch.arange(num_paths, device=like.device)[:, None]
        alone = path == chosen - self.columns.start
        # Where the chosen column does not come here, what comes out is dropped further on.
        kept = torch.where(alone.any(dim=0), alone, local).float()
        return kept / kept.sum(dim=0)

    def extra_repr(self) -> str:
        """Shows the columns and the rate in the printed network."""
        return f"columns={list(self.columns)}, drop_rate={self.drop_rate}"


class FractalBlock(nn.Module):
    """The fractal f_C, then 2x2 max pooling: columns of 1, 2, 4, ... convolutions between joins.

    f_1 is one convolution; f_(c+1) joins f_c after f_c with one convolution, and joins that meet at one
    place are one mean. Column 0 has one convolution, column C - 1 has 2^(C-1).

    Each column is pooled before the last join, as in the authors' generator.

    Args:
        in_chans: channels of the input.
        out_chans: channels of every convolution and of the output.
        num_columns: C.
        drop_rate: dropout after each convolution.
        drop_path_rate: local drop-path.
        norm: makes each normalisation.
        act: makes each activation.
        bias: whether the convolutions have biases.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/2, W/2), rounded down.

    Source: Larsson et al. 2016, "FractalNet", Eq. 1 to 3 and Figure 1.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        num_columns: int,
        *,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.num_columns = num_columns
        self.columns = nn.ModuleList(
            nn.Sequential(
                *(
                    DropConvNormAct(
                        in_chans if i == 0 else out_chans,
                        out_chans,
                        drop_rate=drop_rate,
                        norm=norm,
                        act=act,
                        bias=bias,
                    )
                    for i in range(2**column)
                )
            )
            for column in range(num_columns)
        )
        # joins[i] takes the i + 2 deepest columns.
        self.joins = nn.ModuleList(
            FractalJoin(range(start, num_columns), drop_path_rate)
            for start in reversed(range(num_columns - 1))
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Runs the columns side by side.

        Args:
            x: (B, in_chans, H, W).
            chosen: as in `FractalJoin.forward`.
        """
        paths = [x] * self.num_columns
        steps = 2 ** (self.num_columns - 1)
        for step in range(1, steps + 1):
            # A column of n convolutions has one in every steps / n steps.
            first = next(c for c in range(self.num_columns) if step % (steps >> c) == 0)
            for c in range(first, self.num_columns):
                paths[c] = self.columns[c].get_submodule(str((step << c) // steps - 1))(paths[c])
            if step == steps:
                paths = [self.pool(path) for path in paths]
            num_met = self.num_columns - first
            if num_met > 1:
                joined = self.joins[num_met - 2](paths[first:], chosen)
                paths[first:] = [joined] * num_met
        return paths[0]

    def column(self, index: int) -> nn.Sequential:
        """One column and the pooling, as a plain sequence that shares their weights."""
        return nn.Sequential(*self.columns[index].children(), self.pool)
