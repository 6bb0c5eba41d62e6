"""What `training.py` compares with: the loops of torchvision's references and of timm's train script.

Each trains without end, and calls `Turns.step` after each of its steps.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES = 10
MEAN_STD = {1: ((0.286,), (0.353,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        network: ours.
        peer: timm's name of it; None where timm has none and trains ours.
        data: a source's name, or the place of a folder.
        shape: C, H, W of an image.
        batch_size: B.
        timed: steps of a turn that count.
        lr, weight_decay: of SGD with momentum 0.9.
    """

    network: str
    peer: str | None
    data: str
    shape: tuple[int, int, int]
    batch_size: int
    timed: int
    lr: float
    weight_decay: float


class Over(Exception):
    """The benchmark needs no more steps."""


class Turns:
    """A contender calls `step` after each of its steps; here it waits for its turn."""

    def __init__(self, conn: Connection) -> None:
        self.conn, self.left, self.timed, self.began = conn, 0, 0, (0.0, 0.0)

    def wait(self) -> None:
        untimed, self.timed = self.conn.recv()
        if self.timed == 0:
            raise Over
        self.left = untimed + self.timed

    def step(self) -> None:
        self.left -= 1
        if self.left == self.timed:
            self.began = clocks()
        elif self.left == 0:
            self.conn.send([now - before for now, before in zip(clocks(), self.began, strict=True)])
            self.wait()


def clocks() -> tuple[float, float]:
    """Seconds on the wall, and seconds that the processors have worked for this process and its workers."""
    own = Path("/proc/self/task") / str(os.getpid())
    cpu = time.process_time()
    for child in (own / "children").read_text().split():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), cpu


class Images:
    """Fashion-MNIST as torchvision gives it: a PIL image for each index."""

    def __init__(self, split: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = split.images, split.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index, 0].numpy())
        return (image if self.transform is None else self.transform(image)), int(self.labels[index])


def reference_transform(case: Case, train: bool = True) -> Any:
    import torch
    from torchvision.transforms import v2

    chans, height, _ = case.shape
    crop = (
        [v2.RandomCrop(height, padding=4)] if case.data == "fashion-mnist" else [v2.RandomResizedCrop(height)]
    )
    varied = [*crop, v2.RandomHorizontalFlip()] if train else []
    plain = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*MEAN_STD[chans])]
    return v2.Compose([*varied, *plain, v2.ToPureTensor()])


def reference_data(case: Case, folder: Path, split: str = "train") -> Any:
    from torchvision.datasets import ImageFolder

    from convatlas.data.sources import load_source

    transform = reference_transform(case, split == "train")
    if case.data == "fashion-mnist":
        return Images(getattr(load_source("fashion-mnist"), split), transform)
    return ImageFolder(str(folder / split), transform)


def reference(case: Case, folder: Path, turns: Turns, workers: int, compile: bool) -> None:
    turns.conn.send("ready")
    turns.wait()
    for _ in reference_steps(case, reference_data(case, folder), workers):
        turns.step()


def reference_steps(
    case: Case, data: Any, workers: int, lr_at: Callable[[int], float] | None = None, net: Any = None
) -> Iterator[Any]:
    """Trains without end, and gives the network after each step."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    import convatlas

    net = net or convatlas.create_model(case.network, num_classes=CLASSES, in_chans=case.shape[0])
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=case.lr, momentum=0.9, weight_decay=case.weight_decay)
    loader = DataLoader(data, case.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    step, meters = 0, [0.0, 0.0, 0.0]
    while True:
        net.train()
        for image, target in loader:
            if lr_at is not None:
                optimizer.param_groups[0]["lr"] = lr_at(step)
            output = net(image)
            loss = criterion(output, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.inference_mode():
                right = output.topk(5).indices == target[:, None]
                shown = (loss.item(), right[:, 0].float().mean().item(), right.float().sum(1).mean().item())
                meters = [total + value for total, value in zip(meters, shown, strict=True)]
            step += 1
            yield net


def timm_script(case: Case, folder: Path, turns: Turns, workers: int, compile: bool) -> None:
    import timm
    import torch
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter
    from torch import nn

    import convatlas

    chans = case.shape[0]
    if case.peer is None:
        net = convatlas.create_model(case.network, num_classes=CLASSES, in_chans=chans)
    else:
        net = timm.create_model(case.peer, num_classes=CLASSES, in_chans=chans)
    net.to(memory_format=torch.channels_last)
    half = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    mean, std = MEAN_STD[chans]
    data = reference_data(case, folder)
    loader = create_loader(
        data,
        input_size=case.shape,
        batch_size=case.batch_size,
        is_training=True,
        color_jitter=0.0,
        mean=mean,
        std=std,
        num_workers=workers,
        device=torch.device("cpu"),
    )
    optimizer = create_optimizer_v2(net, opt="sgd", lr=case.lr, weight_decay=case.weight_decay, momentum=0.9)
    criterion, losses = nn.CrossEntropyLoss(), AverageMeter()
    model = torch.compile(net) if compile else net
    turns.conn.send("ready")
    turns.wait()
    while True:
        model.train()
        optimizer.zero_grad()
        for image, target in loader:
            image = image.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
                loss = criterion(model(image), target)
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(image))
            optimizer.zero_grad()
            turns.step()
