"""Networks written for tests of figures, and the geometry of labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convatlas.drawing import Figure


def faults(figure: Figure) -> list[str]:
    """Labels that overlap each other or leave the figure."""
    found = [
        f"{label.text!r} is cut"
        for label in figure.labels
        if label.x0 < 0 or label.y0 < 0 or label.x1 > figure.width or label.y1 > figure.height
    ]
    labels = sorted(figure.labels, key=lambda label: label.y0)
    for i, a in enumerate(labels):
        for b in labels[i + 1 :]:
            if b.y0 >= a.y1 - 0.01:
                break
            if a.x0 < b.x1 - 0.01 and b.x0 < a.x1 - 0.01:
                found.append(f"{a.text!r} overlaps {b.text!r}")
    return found


def texts(figure: Figure) -> list[str]:
    return [label.text for label in figure.labels]


class Frobnicate(nn.Module):
    """A residual block whose names say nothing."""

    def __init__(self, chans: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.p = nn.Conv2d(chans, out, 3, stride, 1)
        self.q = nn.Conv2d(out, out, 3, 1, 1)
        self.r = nn.Conv2d(chans, out, 1, stride) if stride > 1 or chans != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.q(torch.relu(self.p(x))) + self.r(x))


class Wibble(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Sequential(Frobnicate(16, 16), Frobnicate(16, 16), Frobnicate(16, 16))
        self.c = nn.Sequential(Frobnicate(16, 32, 2), Frobnicate(32, 32))
        self.d = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x))).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 32, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.merge2, self.merge1 = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(self.pool(one))
        up = self.up2(self.deep(self.pool(two)))
        two = self.merge2(torch.cat([two, up], 1))
        return self.merge1(torch.cat([one, self.up1(two)], 1))
