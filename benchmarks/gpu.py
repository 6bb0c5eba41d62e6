"""What a GPU does with this project: inference, training and resuming, as a table for RESULTS.md.

./run python benchmarks/gpu.py [--nets resnet50 mobilenet_v2_100] [--batch 1 64] [--px 224] [--seconds 3]
    [--epochs 2] [--device cuda] [--dry-run]

Inference: the network as it is, channels-last in half precision, torch.compile with CUDA graphs (mode
"max-autotune"), and `convatlas.optimize` in fp32 and bf16, in turns. Training: the recipe of resnet20 on
digits, with --exact (float32) and without (bf16 where the chip has it), one process and DDP on one device
(torchrun). Resuming: a training with --exact that is killed after its first checkpoint must end with the same
weights, to the bit.

`--dry-run` takes the CPU, small images, few calls and one epoch: it shows that everything runs, not how fast.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import convatlas
from convatlas.machine import processor
from convatlas.weights.files import read_weights

Run = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["resnet50", "mobilenet_v2_100", "vgg16"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each network and batch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if arguments.dry_run:
        arguments.device, arguments.nets, arguments.batch = "cpu", ["mobilenet_v2_035"], [1]
        arguments.px, arguments.seconds, arguments.epochs = 32, 0.2, 2
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --dry-run takes the CPU")
    warnings.simplefilter("ignore")
    is_gpu = arguments.device == "cuda"
    name = torch.cuda.get_device_name() if is_gpu else f"{processor()}, dry run"
    print(f"{name}, torch {torch.__version__}, {platform.platform()}\n")
    print("| network | batch | way | ms | images/s | error |\n|---|---|---|---|---|---|")
    for net in arguments.nets:
        for batch in arguments.batch:
            inference(net, batch, arguments)
    print("\n| training | images/s |\n|---|---|")
    training(arguments)
    print("\n| resuming after SIGKILL | |\n|---|---|")
    resuming(arguments)


def inference(name: str, batch: int, arguments: argparse.Namespace) -> None:
    device = arguments.device
    torch.manual_seed(0)
    net = convatlas.create_model(name).to(device).eval()
    x = torch.randn(batch, 3, arguments.px, arguments.px, device=device)
    with torch.inference_mode():
        expected = net(x).float()
        runs = {way: run for way, run in ways(net, x, arguments).items() if run is not None}
        times: dict[str, list[float]] = {way: [] for way in runs}
        errors = {}
        for way, run in runs.items():
            for _ in range(3):  # Compiles, records, warms up.
                found = run(x)
            errors[way] = ((found.float() - expected).abs().max() / expected.abs().max()).item()
        begin = time.monotonic()
        while time.monotonic() - begin < arguments.seconds or min(map(len, times.values())) < 3:
            for way, run in runs.items():
                times[way].append(timed(run, x))
    for way, found in times.items():
        ms = statistics.median(found) * 1e3
        print(
            f"| {name} | {batch} | {way} | {ms:.3f} | {batch / ms * 1e3:,.0f} | {errors[way]:.1e} |",
            flush=True,
        )


def ways(net: nn.Module, x: Tensor, arguments: argparse.Namespace) -> dict[str, Run | None]:
    """Ways to run a network; every one takes and gives float32."""
    import copy

    is_gpu = arguments.device == "cuda"
    half = torch.float16 if is_gpu else torch.bfloat16
    last = copy.deepcopy(net).to(half).to(memory_format=torch.channels_last)
    mode = "max-autotune" if is_gpu else "default"  # The first records CUDA graphs.
    compiled = torch.compile(copy.deepcopy(net), mode=mode)
    compiled_half = torch.compile(copy.deepcopy(last), mode=mode)

    def narrow(run: Run) -> Run:
        return lambda x: run(x.to(half).contiguous(memory_format=torch.channels_last)).float()

    found: dict[str, Run | None] = {
        "eager fp32": net,
        f"eager channels-last {str(half)[6:]}": narrow(last),
        "torch.compile fp32": lambda x: compiled(x).clone(),
        f"torch.compile channels-last {str(half)[6:]}": narrow(lambda x: compiled_half(x).clone()),
    }
    if arguments.dry_run:  # A compiler takes longer than a dry run is worth.
        found = {way: run for way, run in found.items() if "compile" not in way}
    engines = ("eager", "torch") if arguments.dry_run else None
    for precision in ("fp32", "bf16"):
        engine = convatlas.optimize(
            net, arguments.px, len(x), precision, engines=engines, remember=not arguments.dry_run
        )
        found[f"optimize {precision}: {engine.report.chosen.label}"] = engine
    return found


def timed(run: Run, x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def command(arguments: argparse.Namespace, out: Path, *options: str) -> list[str]:
    network = "lenet5" if arguments.dry_run else "resnet20_cifar"
    given = ["train", network, "--data", "digits", "--epochs", str(arguments.epochs), "--out", str(out)]
    return [*given, "--device", arguments.device, *options]


def training(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        for label, launcher, options in (
            ("one process, --exact", [], ["--exact"]),
            ("one process", [], []),
            ("DDP on one device", ["torchrun"], []),
        ):
            out = Path(name) / label.replace(" ", "-").replace(",", "")
            start = [sys.executable, "-m"]
            if launcher:
                start += ["torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m"]
            done = subprocess.run(
                [*start, "convatlas", *command(arguments, out, *options)], capture_output=True, text=True
            )
            print(
                f"| {label} | {images_per_second(out) if done.returncode == 0 else reason(done)} |",
                flush=True,
            )


def reason(done: subprocess.CompletedProcess[str]) -> str:
    return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:120]}"


def images_per_second(out: Path) -> str:
    """The last epoch's, as the run's metrics say."""
    rows = [json.loads(line) for line in outermost(out, "metrics.jsonl").read_text().splitlines()]
    rates = [value for row in rows for key, value in row.items() if key == "images_per_s"]
    return f"{rates[-1]:,.0f}" if rates else "not said"


def outermost(folder: Path, name: str) -> Path:
    """The file of a run itself, not those of its checkpoints."""
    return min(folder.rglob(name), key=lambda path: len(path.parts))


def resuming(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        program = [sys.executable, "-m", "convatlas"]
        subprocess.run([*program, *command(arguments, whole, "--exact")], check=True, capture_output=True)
        process = subprocess.Popen(
            [*program, *command(arguments, killed, "--exact")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not list(killed.rglob("checkpoints/step-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        folder = outermost(killed, "run.json").parent
        at = max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)
        subprocess.run([*program, "resume", str(folder)], check=True, capture_output=True)
        first, second = (read_weights(outermost(path, "weights.safetensors")) for path in (whole, killed))
        same = first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        print(f"| killed after step {at}; the same weights, to the bit | {'yes' if same else 'NO'} |")


if __name__ == "__main__":
    main()
