"""Sizes every classification model of torchvision and every model of timm and checks the numbers.

Parameters must equal the sum over `parameters()`; MACs must equal half of what PyTorch's FlopCounterMode
counts on the meta device. Models are built on meta, so the sweep needs little memory, but it takes a while:
results are appended to a file, and a further run goes on where the last one stopped. PyTorch's counts, which
take most of the time, can be taken from the file of an earlier sweep with the same versions.

    python benchmarks/sizing_coverage.py --out coverage.jsonl --seconds 170
    python benchmarks/sizing_coverage.py --out coverage.jsonl --report
    python benchmarks/sizing_coverage.py --out again.jsonl --known coverage.jsonl
"""

import argparse
import json
import os
import random
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convatlas.sizing import size

SEED = 20190528


def model_names() -> list[str]:
    """Every model, as "library/name"."""
    vision = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision/{name}" for name in vision] + [f"timm/{name}" for name in timm.list_models()]


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A model on meta, and its input shape without the batch."""
    library, model = name.split("/", 1)
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                net = create(model)
        except (NotImplementedError, RuntimeError):
            # Its constructor computes with values, such as drop rates from torch.linspace.
            net = create(model).to("meta")
    px = 299 if model == "inception_v3" else 224
    shape = tuple(net.default_cfg["input_size"]) if library == "timm" else (3, px, px)
    return net.eval(), shape


def check(name: str, known: dict[str, list[int]]) -> dict[str, Any]:
    """One result: status is ok, differs, fails (ours) or reference (PyTorch itself fails on meta)."""
    result: dict[str, Any] = {"name": name}
    try:
        net, shape = build(name)
        macs = known[name][1] if name in known else pytorchs_macs(net, shape)
    except Exception as error:
        return result | {"status": "reference", "error": f"{type(error).__name__}: {error}"[:300]}
    params = sum(p.numel() for p in net.parameters())
    try:
        sheet = size(net, shape)
    except Exception as error:
        return result | {"status": "fails", "error": f"{type(error).__name__}: {error}"[:300]}
    same = (sheet.params, sheet.macs) == (params, macs)
    return result | {
        "status": "ok" if same else "differs",
        "params": sheet.params,
        "macs": sheet.macs,
        "expected": [params, macs],
        "not_counted": sorted({row.op for row in sheet.not_counted}),
    }


def pytorchs_macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Half of what FlopCounterMode counts."""
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() // 2


def results(path: Path) -> Iterator[dict[str, Any]]:
    """Results so far."""
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)


def report(path: Path) -> None:
    """Prints shares per library and everything that is not ok."""
    found = list(results(path))
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}")
    for library in ("torchvision", "timm"):
        mine = [r for r in found if r["name"].startswith(library + "/")]
        exact = sum(r["status"] == "ok" for r in mine)
        total = sum(name.startswith(library + "/") for name in model_names())
        print(
            f"{library}: {exact} of {len(mine)} exact ({exact / max(len(mine), 1):.2%}); {total} registered"
        )
    for r in found:
        if r["status"] != "ok":
            print(
                r["status"],
                r["name"],
                r.get("error") or f"{r['params']}, {r['macs']} against {r['expected']}",
            )
    missing = sorted({op for r in found for op in r.get("not_counted", ())})
    print("operations without a rule:", ", ".join(missing) or "none")


def draw(path: Path, library: str, many: int) -> list[str]:
    """Names for the tests: drawn by seed among the models that are soon built and counted."""
    small = [r["name"] for r in results(path) if r["status"] != "reference" and is_small(r)]
    mine = sorted(name for name in small if name.startswith(library + "/"))
    return sorted(random.Random(SEED).sample(mine, many))


def is_small(result: dict[str, Any]) -> bool:
    """At most 30 M parameters and 6 GMACs."""
    params, macs = result["expected"]
    return params <= 30_000_000 and macs <= 6_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("sizing_coverage.jsonl"))
    parser.add_argument("--seconds", type=float, default=170, help="stop after this long; run again to go on")
    parser.add_argument("--step", type=int, default=1, help="take every n-th model only")
    parser.add_argument("--retry", action="store_true", help="first forget what was not ok")
    parser.add_argument("--known", type=Path, help="take PyTorch's counts from this earlier file")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--draw", action="store_true", help="print the names that tests/sizing uses")
    args = parser.parse_args()
    if args.report:
        return report(args.out)
    if args.draw:
        print("\n".join(draw(args.out, "torchvision", 12) + draw(args.out, "timm", 48)))
        return None
    kept = [r for r in results(args.out) if r["status"] == "ok" or not args.retry]
    args.out.write_text("".join(json.dumps(r) + "\n" for r in kept))
    done = {r["name"] for r in kept}
    known = {r["name"]: r["expected"] for r in results(args.known)} if args.known else {}
    end = time.monotonic() + args.seconds
    for name in model_names()[:: args.step]:
        if name in done:
            continue
        if time.monotonic() > end:
            break
        with args.out.open("a") as out:
            out.write(json.dumps(check(name, known)) + "\n")
    return report(args.out)


if __name__ == "__main__":
    main()
