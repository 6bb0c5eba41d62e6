"""Every network of the atlas into every format: what fails, and by how much logits differ.

./run python benchmarks/export_matrix.py [NAME ...] [--formats .onnx .ncnn.param .mnn] [--dynamic-batch]
    [--out matrix.jsonl] [--seconds 150]

Each network is built as it is initialised, its norms' statistics taken from images like those that logits are
compared on (of noise, SENet-154's logits would be rounding alone), at its published size. What stands in
--out is not done again, and after --seconds no new network is begun: the matrix can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import convatlas
from convatlas.engines.export import export, untrained_network
from convatlas.engines.exported import ALL_SUFFIXES, SUFFIXES
from convatlas.engines.request import synthetic_images


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = untrained_network(name)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            net.train()(synthetic_images((2, *convatlas.find_card(name).input_size)))
    return net.eval()


def one(net: nn.Module, suffix: str, dynamic: bool) -> dict[str, object]:
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = export(net, Path(folder) / f"net{suffix}", dynamic_batch=dynamic)
            found: dict[str, object] = {"error": made.error, "bytes": made.bytes}
        except (ValueError, OSError) as error:
            found = {"failed": str(error)}
    return {**found, "seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--formats", nargs="+", choices=ALL_SUFFIXES, default=list(SUFFIXES))
    parser.add_argument("--dynamic-batch", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.monotonic()
    done: dict[tuple[str, str, bool], dict[str, object]] = {}
    if arguments.out is not None and arguments.out.exists():
        for line in arguments.out.read_text().splitlines():
            row = json.loads(line)
            done[row["network"], row["format"], row["dynamic"]] = row
    names = arguments.names or convatlas.list_models()
    for name in names:
        wanted = [
            suffix for suffix in arguments.formats if (name, suffix, arguments.dynamic_batch) not in done
        ]
        if not wanted or time.monotonic() - begin > arguments.seconds:
            continue
        net = network(name)
        for suffix in wanted:
            row = {"network": name, "format": suffix, "dynamic": arguments.dynamic_batch}
            row |= one(net, suffix, arguments.dynamic_batch)
            done[name, suffix, arguments.dynamic_batch] = row
            said = row.get("failed") or f"error {row['error']:.1e}, {row['bytes'] / 1e6:.1f} MB"
            print(f"{name:<26} {suffix:<11} {row['seconds']:6.1f} s  {said}", flush=True)
            if arguments.out is not None:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    rows = [done[key] for key in done if key[0] in names and key[2] == arguments.dynamic_batch]
    for suffix in arguments.formats:
        mine = [row for row in rows if row["format"] == suffix]
        failed = [row for row in mine if "failed" in row]
        worst = max((row["error"] for row in mine if "error" in row), default=0.0)
        print(
            f"{suffix}: {len(mine)} of {len(names)} networks, {len(failed)} fail, largest error {worst:.1e}"
        )
        for row in failed:
            print(f"    {row['network']}: {row['failed']}")


if __name__ == "__main__":
    main()
