"""Times `convatlas.sizing.size` against the tools that people size networks with.

Each round times every tool in turn (best of three calls) on a network that is already built, so that a slow
moment of the machine falls on all alike; medians over the rounds are compared. Every tool gets what is
fastest for it: the network on the meta device where it accepts that. With `--build` the network is built
within the timed region: ours on meta, those of the others as `create_model` builds them, with weights (`cpu`;
moved to meta afterwards), or on meta too (`meta`; but for fvcore, which cannot).

    python benchmarks/sizing.py [--rounds 5] [--nets resnet50 ...] [--build cpu] [--memory]
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import logging
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

NETS = (
    "resnet50", "vgg19", "densenet201", "mobilenetv2_100", "efficientnet_b0", "inception_v4", "nasnetalarge",
    "legacy_xception", "inception_resnet_v2",
)  # fmt: skip


def tools() -> dict[str, Callable[[Any, tuple[int, ...]], Any]]:
    """Each takes a network on meta and an input shape with batch."""
    if importlib.util.find_spec("transformers") is None:
        # Parts of calflops that import it serve language models only.
        for split in ("flops_counter_hf", "estimate"):
            sys.modules[f"calflops.{split}"] = mock.MagicMock()
    import calflops
    import ptflops
    import thop
    import torch
    import torchinfo
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    from convatlas.sizing import size

    def meta(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    def ours(net: Any, shape: tuple[int, ...]) -> list[tuple[Any, ...]]:
        # What is worked out only when asked for, bytes and receptive fields, is asked for of every row.
        return [
            (
                row.path, row.op, row.input_shapes, row.output_shapes, row.params, row.macs, row.flops,
                row.bytes_read, row.bytes_written, row.receptive_field,
            )
            for row in size(net, shape[1:]).rows
        ]  # fmt: skip

    def flop_counter(net: Any, shape: tuple[int, ...]) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(meta(shape))
        return counter.get_total_flops()

    def ptflops_(net: Any, shape: tuple[int, ...]) -> Any:
        return ptflops.get_model_complexity_info(
            net, shape[1:], print_per_layer_stat=False, as_strings=False, verbose=False, backend="pytorch",
            input_constructor=lambda _: {"x": meta(shape)},
        )  # fmt: skip

    def fvcore(net: Any, shape: tuple[int, ...]) -> Any:
        # It traces with torch.jit, which does not run on meta.
        counter = FlopCountAnalysis(net, torch.empty(shape))
        return counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

    return {
        "convatlas": ours,
        "torchinfo": lambda net, shape: torchinfo.summary(net, input_size=shape, device="meta", verbose=0),
        "fvcore": fvcore,
        "ptflops": ptflops_,
        "thop": lambda net, shape: thop.profile(net, (meta(shape),), verbose=False),
        "calflops": lambda net, shape: calflops.calculate_flops(
            net, args=[meta(shape)], print_results=False, print_detailed=False, output_as_string=False
        ),
        "FlopCounterMode": flop_counter,
    }


def seconds(run: Callable[[], Any]) -> float | None:
    """Wall time of the best of three calls in a row, or None if one raises."""
    gc.collect()
    taken: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run()
        except Exception:
            return None
        taken.append(time.perf_counter() - start)
    return min(taken)


def compare(net_name: str, rounds: int, build: str | None) -> dict[str, float | None]:
    """Median seconds per tool."""
    import timm
    import torch

    def create(tool: str) -> Any:
        on_cpu = tool == "fvcore" or (build == "cpu" and tool != "convatlas")
        with torch.device("cpu" if on_cpu else "meta"):
            net = timm.create_model(net_name).eval()
        return net.to("meta") if on_cpu and tool != "fvcore" else net

    built = {name: create(name) for name in tools()}
    shape = (1, *built["convatlas"].default_cfg["input_size"])
    times: dict[str, list[float | None]] = {name: [] for name in built}
    for _ in range(rounds + 1):
        for name, tool in tools().items():
            if times[name] == [None]:
                continue
            net = None if build else built[name]
            times[name].append(
                seconds(lambda net=net, tool=tool, name=name: tool(net or create(name), shape))
            )
    medians: dict[str, float | None] = {}
    for name, taken in times.items():
        kept = [t for t in taken[1:] if t is not None]
        medians[name] = statistics.median(kept) if kept else None
    return medians


def peak_rise(net: str = "vgg19") -> float:
    """MB by which sizing raises a fresh process's peak memory over importing torch and building on meta."""
    code = (
        "import resource, torch, timm\n"
        f"with torch.device('meta'): net = timm.create_model({net!r}).eval()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "from convatlas.sizing import size\n"
        "size(net, 224).rows\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def versions() -> str:
    """Machine and versions, one line each."""
    from importlib.metadata import version

    names = ("torch", "timm", "torchinfo", "fvcore", "ptflops", "thop", "calflops")
    tools_line = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n{tools_line}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--build", choices=("cpu", "meta"), help="include building, of the others' on this")
    parser.add_argument(
        "--memory", action="store_true", help="measure how much sizing VGG-19 raises peak memory"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(versions())
    if args.memory:
        print(f"sizing vgg19 raises peak memory by {peak_rise():.1f} MB")
        return
    names = list(tools())
    print("ms".ljust(22), *(name.rjust(15) for name in names), "best other / ours".rjust(18))
    ratios: list[float] = []
    for net in args.nets:
        found = compare(net, args.rounds, args.build)
        ours = found["convatlas"]
        others = [t for name, t in found.items() if name != "convatlas" and t is not None]
        assert ours is not None and others
        ratios.append(min(others) / ours)
        cells = ("fails" if found[n] is None else f"{found[n] * 1e3:.2f}" for n in names)
        print(net.ljust(22), *(c.rjust(15) for c in cells), f"{ratios[-1]:.1f}".rjust(18), flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"geometric mean of the ratios: {mean:.1f}; smallest: {min(ratios):.1f}")


if __name__ == "__main__":
    main()
