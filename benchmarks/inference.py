"""`convatlas.optimize` against engines used by hand, two threads each, on the same weights, in turns.

The peers: eager timm, eager torchvision, torch.compile, ONNX Runtime, OpenVINO, ncnn, MNN, ExecuTorch with
XNNPACK, and zentorch where the processor is AMD's; those that are not installed are left out, with a line.

./run python benchmarks/inference.py [--quick] [--nets resnet50 vgg16] [--batch 1 16]
    [--precision fp32 bf16 int8] [--peers timm openvino] [--out inference.jsonl] [--seconds 6]

Each network and batch is a part of its own. Parts that stand in --out already are not run again, so that a
long benchmark can be cut into pieces. A part prints the median of each; at the end come the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import logging
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

THREADS = 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)  # Before torch is imported.

import timm  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import convatlas  # noqa: E402
from convatlas.engines.timing import measure_undisturbed  # noqa: E402
from convatlas.machine import processor  # noqa: E402
from convatlas.weights import load_foreign  # noqa: E402

# Ours, timm's, torchvision's.
NETS = {
    "resnet50": ("resnet50_v1_5", "resnet50", "resnet50"),
    "mobilenetv2": ("mobilenet_v2_100", "mobilenetv2_100", "mobilenet_v2"),
    "efficientnet_b0": ("efficientnet_b0", "efficientnet_b0", "efficientnet_b0"),
    "densenet121": ("densenet121", "densenet121", "densenet121"),
    "inception_v3": ("inception_v3", "inception_v3", "inception_v3"),
    "vgg16": ("vgg16", "vgg16", "vgg16"),
    "resnext50": ("resnext50_32x4d", "resnext50_32x4d", "resnext50_32x4d"),
    "xception": ("xception", "legacy_xception", None),
}
PEERS = (
    "timm",
    "torchvision",
    "compile",
    "onnxruntime",
    "openvino",
    "ncnn",
    "mnn",
    "executorch",
    "zentorch",
)
PACKAGES = {
    "ncnn": ("ncnn", "pnnx"),
    "mnn": ("MNN",),
    "executorch": ("executorch",),
    "zentorch": ("zentorch",),
}
PAUSE = 0.1
"""Seconds between programs, in which threads that wait for work fall asleep; ONNX Runtime's take 50 ms."""
Run = Callable[[], Tensor]


def make_peer(name: str, net: nn.Module, theirs: str | None, x: Tensor, folder: Path) -> Run | None:
    """A peer as its own documentation uses it; None where it has not got the network."""
    if name == "timm":
        return lambda: net(x)
    if name == "torchvision":
        if theirs is None:
            return None
        options = {"transform_input": False, "aux_logits": True} if theirs == "inception_v3" else {}
        peer = torchvision.models.get_model(theirs, weights=None, **options).eval()
        return lambda: peer(x)
    if name == "compile":
        from torch._inductor import config

        config.freezing = True
        compiled = torch.compile(net)
        return lambda: compiled(x)
    if name == "onnxruntime":
        import onnxruntime

        path = folder / "peer.onnx"
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False, external_data=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.numpy()}
        return lambda: torch.from_numpy(session.run(None, feed)[0])
    if name in PACKAGES:
        return {"ncnn": by_ncnn, "mnn": by_mnn, "executorch": by_executorch, "zentorch": by_zentorch}[name](
            net, x, folder
        )
    import openvino

    model = openvino.convert_model(net, example_input=x)
    model.reshape(list(x.shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.compile_model(model, "CPU", options)
    images = x.numpy()
    return lambda: torch.from_numpy(compiled(images)[0])


def is_there(name: str) -> bool:
    """Whether a peer's packages are installed, and its processor is here."""
    missing = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        print(f"{name}: left out, {' and '.join(missing)} not installed", flush=True)
    elif name == "zentorch" and "AMD" not in processor():
        print("zentorch: left out, the processor is not AMD's", flush=True)
        return False
    return not missing


def by_ncnn(net: nn.Module, x: Tensor, folder: Path) -> Run:
    import ncnn
    import numpy as np
    import pnnx

    with contextlib.chdir(folder):
        pnnx.export(net, "peer.pt", x[:1], fp16=False, check_trace=False)
    peer = ncnn.Net()
    peer.opt.num_threads = THREADS
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(peer.opt, option, False)
    peer.load_param(str(folder / "peer.ncnn.param"))
    peer.load_model(str(folder / "peer.ncnn.bin"))

    def one(image: np.ndarray) -> np.ndarray:
        extractor = peer.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        return np.array(extractor.extract("out0")[1])

    return lambda: torch.from_numpy(np.stack([one(image) for image in x.numpy()]))


def by_mnn(net: nn.Module, x: Tensor, folder: Path) -> Run:
    import MNN.expr
    import MNN.nn
    import numpy as np

    source, path = folder / "peer-mnn.onnx", folder / "peer.mnn"
    torch.onnx.export(
        net, (x,), source, dynamo=True, verbose=False, external_data=False,
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    command = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(path), "--bizCode", "peer"]
    subprocess.run(
        [sys.executable, "-c", "import sys, _tools; _tools.mnnconvert(sys.argv)", *command],
        check=True,
        capture_output=True,
    )
    options = {"backend": "CPU", "precision": "high", "numThread": THREADS}
    manager = MNN.nn.create_runtime_manager((options,))
    peer = MNN.nn.load_module_from_file(str(path), ["images"], ["logits"], runtime_manager=manager)

    def run() -> Tensor:
        images = MNN.expr.const(x.numpy(), list(x.shape), MNN.expr.NCHW)
        return torch.from_numpy(np.array(peer.forward([images])[0].read()).reshape(len(x), -1))

    return run


def by_executorch(net: nn.Module, x: Tensor, folder: Path) -> Run:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    program = to_edge_transform_and_lower(torch.export.export(net, (x,)), partitioner=[XnnpackPartitioner()])
    path = folder / "peer.pte"
    path.write_bytes(program.to_executorch().buffer)
    portable_lib._unsafe_reset_threadpool(THREADS)
    loaded = Runtime.get().load_program(path)
    method = loaded.load_method("forward")
    return lambda: method.execute([x])[0] if loaded else x


def by_zentorch(net: nn.Module, x: Tensor, folder: Path) -> Run:
    import zentorch  # noqa: F401

    compiled = torch.compile(net, backend="zentorch")
    return lambda: compiled(x)


def photographs(count: int, shape: tuple[int, ...]) -> Tensor:
    """Crops of photographs, normalised as ImageNet's are: (count, C, H, W)."""
    import skimage.data

    names = ("astronaut", "chelsea", "coffee", "rocket")
    images = [torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) for name in names]
    draw = torch.Generator().manual_seed(0)
    crops = []
    for number in range(count):
        image = images[number % len(images)]
        side = int(torch.randint(150, 290, (1,), generator=draw))
        top, left = (int(torch.randint(0, n - side, (1,), generator=draw)) for n in image.shape[1:])
        crop = image[:, top : top + side, left : left + side].float() / 255
        crops.append(nn.functional.interpolate(crop[None], shape[2:], mode="bilinear", antialias=True)[0])
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (torch.stack(crops) - mean) / std


def prepare(net: nn.Module, images: Tensor) -> nn.Module:
    """Gives norms the statistics of photographs, so that logits of untrained weights do not fade away."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            net.train()(images[:8])
    return net.eval()


def measure(runs: dict[str, Run], seconds: float, least: int) -> dict[str, list[float]]:
    """Times each in turn, each round in a new order: a pause, a call that is not counted, calls that are.

    Calls in which the host of a virtual machine took processors away are made again, whoever's they are.
    """

    def time_once(run: Run) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin = time.monotonic()
    while time.monotonic() - begin < seconds or min(map(len, times.values())) < least:
        for name, run in order.sample(list(runs.items()), len(runs)):
            time.sleep(PAUSE)
            calls = max(1, min(5, int(0.05 / time_once(run))))
            times[name] += [measure_undisturbed(functools.partial(time_once, run)) for _ in range(calls)]
    return times


def split(label: str, batch: int, precision: str, arguments: argparse.Namespace) -> dict[str, object]:
    """One network, batch and precision: medians in milliseconds, errors, and what was chosen."""
    ours, theirs, tv = NETS[label]
    torch.manual_seed(0)
    peer = timm.create_model(theirs)
    shape = (batch, *peer.default_cfg["input_size"])
    images = photographs(max(64 if precision == "int8" else 8, batch), shape)
    prepare(peer, images)
    net = convatlas.create_model(ours).eval()
    load_foreign(net, peer.state_dict(), source="timm")
    x = images[:batch].contiguous()
    with torch.inference_mode():
        expected = peer(x)
    begin = time.perf_counter()
    engine = convatlas.optimize(
        net,
        shape[1:],
        batch,
        precision,
        threads=THREADS,
        calibration=images if precision != "fp32" else None,
        remember=not arguments.forget,
    )
    took = time.perf_counter() - begin
    print(engine.report, flush=True)
    runs: dict[str, Run] = {"ours": lambda: engine(x)}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.peers if precision == "fp32" else ["timm"]:
            with contextlib.redirect_stdout(io.StringIO()):
                run = make_peer(name, peer, tv, x, Path(folder))
            if run is not None:
                runs[name] = run
        with torch.inference_mode():
            errors = {name: relative(run(), expected) for name, run in runs.items() if name != "torchvision"}
            times = measure(runs, arguments.seconds, arguments.least)
    return {
        "net": label,
        "batch": batch,
        "precision": precision,
        "engine": engine.report.chosen.label,
        "optimize_seconds": round(took, 1),
        "remembered": engine.report.remembered,
        "same_top": engine.report.chosen.same_top,
        "ms": {name: round(statistics.median(found) * 1e3, 3) for name, found in times.items()},
        "fastest_ms": {name: round(min(found) * 1e3, 3) for name, found in times.items()},
        "error": errors,
    }


def relative(logits: Tensor, expected: Tensor) -> float:
    return float((logits - expected).abs().max() / expected.abs().max())


def show(found: dict[str, object]) -> None:
    times = found["ms"]
    ours = times["ours"]
    peers = {name: ms for name, ms in times.items() if name != "ours"}
    best = min(peers, key=peers.get)
    columns = "  ".join(f"{name} {ms:9.2f}" for name, ms in times.items())
    print(
        f"{found['net']:<15} batch {found['batch']:<3} {found['precision']}  {columns} ms  "
        f"{peers['timm'] / ours:5.2f}x timm  {peers[best] / ours:5.2f}x fastest peer ({best})  "
        f"error {found['error']['ours']:.1e}  {found['engine']}",
        flush=True,
    )


def summarise(parts: list[dict[str, object]]) -> None:
    for precision in ("fp32", "bf16", "int8"):
        rows = [row for row in parts if row["precision"] == precision]
        if not rows:
            continue
        speedups = [row["ms"]["timm"] / row["ms"]["ours"] for row in rows]
        mean = math.exp(statistics.fmean(map(math.log, speedups)))
        least = min(speedups)
        print(f"{precision}: {mean:.2f} times eager timm (geometric mean of {len(rows)}), least {least:.2f}")
        if precision == "fp32":
            worst = max(rows, key=lambda row: row["ms"]["ours"] / fastest(row))
            late = worst["ms"]["ours"] / fastest(worst) - 1
            where = f"{worst['net']}, batch {worst['batch']}"
            print(f"      against the fastest peer, at worst {late:+.1%} ({where})")
        agreement = [row["same_top"] for row in rows if row["same_top"] is not None]
        if precision != "fp32" and agreement:
            print(f"      same top class on {statistics.fmean(agreement):.1%} of the images")


def fastest(row: dict[str, object]) -> float:
    return min(ms for name, ms in row["ms"].items() if name != "ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16", "int8"), default=["fp32"])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, for each part")
    parser.add_argument("--least", type=int, default=5, help="calls of each, at the least")
    parser.add_argument(
        "--out", type=Path, help="JSON lines, one for each part; parts in it are not run again"
    )
    parser.add_argument("--forget", action="store_true", help="neither use nor keep remembered choices")
    parser.add_argument("--quick", action="store_true", help="two small networks, batch 1, a few calls")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.nets, arguments.batch = ["mobilenetv2", "efficientnet_b0"], [1]
        arguments.seconds, arguments.peers = 5.0, ["timm", "torchvision", "onnxruntime", "openvino"]
    arguments.peers = [name for name in dict.fromkeys(["timm", *arguments.peers]) if is_there(name)]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    print(
        f"{processor()}, {platform.platform()}, torch {torch.__version__}, timm {timm.__version__}",
        flush=True,
    )
    done: dict[tuple[object, ...], dict[str, object]] = {}
    if arguments.out is not None and arguments.out.exists():
        for line in arguments.out.read_text().splitlines():
            row = json.loads(line)
            done[row["net"], row["batch"], row["precision"]] = row
    wanted = [(n, b, p) for p in arguments.precision for n in arguments.nets for b in arguments.batch]
    for key in wanted:
        if key not in done:
            done[key] = split(*key, arguments)
            if arguments.out is not None:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
        show(done[key])
    summarise([done[key] for key in wanted])


if __name__ == "__main__":
    main()
