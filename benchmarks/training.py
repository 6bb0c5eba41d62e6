"""Images per second of training, against the pattern of torchvision's references and that of timm's script.

ResNet-20 on Fashion-MNIST and MobileNetV2 on a folder of JPEG images at 224 px. Each contender is a process
of its own that trains; they take turns of some steps, the first of which do not count, and the median over
the rounds is what counts. Ours is `convatlas.train` itself, with its checks, logs and checkpoints. On a
machine that does other work too, look at the processors' time rather than the clock's.

    python benchmarks/training.py [resnet20] [mobilenet] [--rounds 5] [--compile]
    python benchmarks/training.py --to-accuracy 0.93 [--epochs 10] [--contenders ours reference]

The reference is the loop of torchvision's references/classification/train.py: a DataLoader with workers, v2
transforms on each PIL image, float32, NCHW. timm's is its train.py: its loader, optimiser, and network where
it has it, with --channels-last, and --amp --amp-dtype bfloat16 where the chip has bfloat16 (--torchcompile
too with `--compile`).
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training_peers import (
    CLASSES,
    MEAN_STD,
    Case,
    Images,
    Over,
    Turns,
    reference,
    reference_steps,
    reference_transform,
    timm_script,
)

IMAGE_SIZE = (375, 500)


CASES = {
    "resnet20": Case("resnet20_cifar", None, "fashion-mnist", (1, 28, 28), 128, 12, 0.1, 1e-4),
    "mobilenet": Case("mobilenet_v2_100", "mobilenetv2_100", "folder", (3, 224, 224), 32, 5, 0.045, 4e-5),
}
UNTIMED = 4  # what was prefetched while others had their turn is used up by then


def ours(case: Case, folder: Path, turns: Turns, workers: int, compile: bool) -> None:
    from convatlas.machine import share_cores

    share_cores()  # as the command does, before torch is there
    import convatlas
    from convatlas.training.logging.events import Facts, Silent, StepDone

    class Gate(Silent):
        def start(self, facts: Facts) -> None:
            print("\n".join(f"    ours: {line}" for line in facts.speed), flush=True)
            turns.conn.send("ready")
            turns.wait()

        def step(self, done: StepDone) -> None:
            turns.step()

    with tempfile.TemporaryDirectory() as out:
        data = f"folder:{folder}" if case.data == "folder" else case.data
        count = None if case.data == "fashion-mnist" else workers
        convatlas.train(
            case.network,
            data=data,
            recipe=our_recipe(case),
            out=out,
            workers=count,
            compile=compile,
            watcher=Gate(),
        )


def our_recipe(case: Case) -> Any:
    from convatlas.data.augment import Augment, PadCrop, ResizedCrop
    from convatlas.training.recipes.recipe import Recipe

    small = case.data == "fashion-mnist"
    crop: dict[str, Any] = {"pad_crop": PadCrop()} if small else {"resized_crop": ResizedCrop()}
    return Recipe(
        epochs=100,
        batch_size=case.batch_size,
        lr=case.lr,
        momentum=0.9,
        weight_decay=case.weight_decay,
        augment=Augment(flip=0.5, **crop),
    )


CONTENDERS = {"ours": ours, "reference": reference, "timm": timm_script}


def contend(name: str, case: Case, folder: Path, conn: Connection, workers: int, compile: bool) -> None:
    with contextlib.suppress(Over, EOFError):
        CONTENDERS[name](case, folder, Turns(conn), workers, compile)


def make_images(folder: Path, count: int) -> None:
    """Class folders of images with the spectrum of photographs, of ImageNet's usual size."""
    height, width = IMAGE_SIZE
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij"))
    amplitudes = 1.0 / np.maximum(frequencies, 1.0 / width)
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 2 * CLASSES)):
        for i in range(number):
            path = folder / split / f"class_{i % CLASSES}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if i >= 100:  # Copies: the files are what is read, not what is on them.
                source = folder / split / f"class_{i % CLASSES}" / f"{i % 100}.jpg"
                path.write_bytes(source.read_bytes())
                continue
            phases = np.exp(2j * np.pi * rng.random((3, *frequencies.shape)))
            waves = np.fft.irfft2(amplitudes * phases, s=IMAGE_SIZE)
            levels = 128.0 + 50.0 * waves / waves.std()
            Image.fromarray(levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(path, quality=90)


def conv_peak(half: bool) -> float:
    """The most FLOP/s of some convolutions, forward and channels-last, that this machine reaches."""
    import torch

    best = 0.0
    for chans, size, batch in ((64, 56, 16), (128, 28, 32), (256, 14, 64)):
        x = torch.randn(batch, chans, size, size).to(memory_format=torch.channels_last)
        w = torch.randn(chans, chans, 3, 3).to(memory_format=torch.channels_last)
        x, w = (t.bfloat16() for t in (x, w)) if half else (x, w)
        for _ in range(8):
            began = time.perf_counter()
            torch.conv2d(x, w, padding=1)
            best = max(best, 2 * 9 * chans * x.numel() / (time.perf_counter() - began))
    return best


def data_seconds(case: Case) -> float:
    """What a batch in memory takes to be picked, augmented and normalised by ours, the median of 30."""
    from convatlas.data.apply import augment_batch
    from convatlas.data.batches import read_batches
    from convatlas.data.counter_random import permutation
    from convatlas.data.sources import load_source

    source, size = load_source(case.data), case.batch_size
    order = permutation(0, 0, len(source.train))
    mean, std = MEAN_STD[case.shape[0]]
    batches = read_batches(source.train, [(order[i * size : (i + 1) * size], None) for i in range(30)])
    taken = []
    began = time.perf_counter()
    for batch in batches:
        augment = our_recipe(case).augment
        augment_batch(batch.images, batch.samples, augment=augment, seed=0, epoch=0, mean=mean, std=std)
        taken.append(time.perf_counter() - began)
        began = time.perf_counter()
    return statistics.median(taken)


def compete(name: str, case: Case, names: list[str], args: argparse.Namespace) -> None:
    import torch

    from convatlas import create_model
    from convatlas.sizing import size

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if case.data == "folder":
            steps = args.rounds * (UNTIMED + (args.steps or case.timed))
            make_images(folder, case.batch_size * (steps + 20))
        turns = take_turns(case, folder, names, args)
    medians = {
        contender: [statistics.median(values) for values in zip(*rounds, strict=True)]
        for contender, rounds in turns.items()
    }
    chans, height, _ = case.shape
    macs = size(create_model(case.network, in_chans=chans), (chans, height, height)).macs
    half = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    peak = conv_peak(half)
    print(f"{name}: batch {case.batch_size}, peak of convolutions {peak / 1e9:.0f} GFLOP/s")
    for contender, (wall, cpu) in medians.items():
        share = 6.0 * macs / wall / peak  # forward, and backward to inputs and weights
        slowest, fastest = (1.0 / choose(turns[contender])[0] for choose in (max, min))
        speed = f"{1.0 / wall:>8.1f} images/s ({slowest:.1f} to {fastest:.1f}), {share:.0%} of peak"
        line = f"    {contender:<18}{speed}, {cpu * 1e3:.2f} ms of processors an image"
        if contender != "ours" and "ours" in medians:
            ratio, less = wall / medians["ours"][0], cpu / medians["ours"][1]
            line += f"; ours is {ratio:.2f}x as fast ({less:.2f}x by the processors)"
        print(line)
    if case.data != "folder" and "ours" in medians:
        taken = data_seconds(case)
        share = taken / (medians["ours"][0] * case.batch_size)
        print(f"    data and augmentation of ours: {taken * 1e3:.2f} ms a step, {share:.1%} of it")


def take_turns(
    case: Case, folder: Path, names: list[str], args: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """For each contender and round: seconds an image, of the clock and of the processors."""
    context = multiprocessing.get_context("spawn")
    conns: dict[str, Connection] = {}
    for name in names:
        conns[name], other = context.Pipe()
        base, _, compiled = name.partition("+")
        arguments = (base, case, folder, other, args.workers, bool(compiled))
        context.Process(target=contend, args=arguments).start()
        assert conns[name].recv() == "ready"
    timed = args.steps or case.timed
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for i in range(args.rounds + 1):  # the first is for warming up
        for name in names if i % 2 else reversed(names):
            conns[name].send((UNTIMED, timed if i else 1))
            wall, cpu = conns[name].recv()
            if i:
                turns[name].append((wall / case.batch_size / timed, cpu / case.batch_size / timed))
    for name in names:
        conns[name].send((0, 0))
    for process in multiprocessing.active_children():
        process.join(60)
        process.kill()
    return turns


def race(contender: str, case: Case, args: argparse.Namespace) -> None:
    """Trains until an accuracy is reached at an epoch's end, and says when; by our recipe in both cases."""
    from convatlas.data.sources import load_source
    from convatlas.training.recipes.find import find_recipe

    recipe = find_recipe(case.network, args.recipe, {"epochs": args.epochs, "batch_size": case.batch_size})
    source = load_source(case.data)
    began = time.perf_counter()

    def tell(epoch: int, accuracy: float) -> None:
        seconds = time.perf_counter() - began
        print(f"    {contender} epoch {epoch}: {accuracy:.2%} after {seconds:.1f} s", flush=True)
        if accuracy >= args.to_accuracy:
            raise Over

    with contextlib.suppress(Over):
        if contender == "ours":
            race_ours(case, source, recipe, tell)
        else:
            race_reference(case, source, recipe, tell, args.workers)


def race_ours(case: Case, source: Any, recipe: Any, tell: Callable[[int, float], None]) -> None:
    import convatlas
    from convatlas.training.logging.events import EpochDone, Silent

    class Clock(Silent):
        def epoch(self, done: EpochDone) -> None:
            tell(done.epoch + 1, done.test_accuracy)

    with tempfile.TemporaryDirectory() as out:
        convatlas.train(case.network, data=source, recipe=recipe, out=out, watcher=Clock())


def race_reference(
    case: Case, source: Any, recipe: Any, tell: Callable[[int, float], None], workers: int
) -> None:
    import torch
    from torch.utils.data import DataLoader

    data = Images(source.train, reference_transform(case))
    tests = DataLoader(Images(source.test, reference_transform(case, train=False)), 256, num_workers=workers)
    per_epoch = len(data) // case.batch_size
    rate = lambda step: recipe.lr_at(step, per_epoch * recipe.epochs)  # noqa: E731
    for step, net in enumerate(reference_steps(case, data, workers, rate), 1):
        if step % per_epoch == 0:
            net.eval()
            with torch.inference_mode():
                right = sum(int((net(image).argmax(1) == target).sum()) for image, target in tests)
            tell(step // per_epoch, right / len(source.test))
            net.train()
        if step == per_epoch * recipe.epochs:
            return


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="that count in each turn")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="that read images")
    parser.add_argument("--compile", action="store_true", help="ours and timm's with torch's compiler, too")
    parser.add_argument("--to-accuracy", type=float, help="train ResNet-20 on Fashion-MNIST until then")
    parser.add_argument("--recipe", help="of --to-accuracy; the network's own if not given")
    parser.add_argument("--epochs", type=int, default=10, help="of --to-accuracy")
    args = parser.parse_args()
    if args.to_accuracy is not None:
        for contender in args.contenders:
            if contender != "timm":
                race(contender, CASES["resnet20"], args)
        return
    names = [*args.contenders]
    if args.compile:
        names += [f"{name}+compile" for name in names if name != "reference"]
    for name in args.cases:
        compete(name, CASES[name], names, args)


if __name__ == "__main__":
    main()
