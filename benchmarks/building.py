"""CPU seconds to build a network, ours against timm's of the same network: interleaved, median, one thread.

./run python benchmarks/building.py [--rounds 3] [NAME ...]
"""

import argparse
import math
import platform
import statistics
import time
import warnings

import timm
import torch

import convatlas
from convatlas.weights import all_tables

ROUNDS = 3


def pairs() -> dict[str, str]:
    """Our name and timm's, wherever a key table says that they are one network."""
    found: dict[str, str] = {}
    for name in convatlas.list_models():
        tables = [table for table in all_tables() if table.source == "timm" and table.fit(name) > (False, -1)]
        if tables:
            theirs = max(tables, key=lambda table: table.fit(name)).their_name(name)
            if timm.is_model(theirs):
                found[name] = theirs
    return found


def seconds(build: object, name: str) -> float:
    started = time.process_time()
    build(name)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"{platform.platform()}, torch {torch.__version__}, timm {timm.__version__}")
    ratios = []
    for ours, theirs in pairs().items():
        if arguments.names and ours not in arguments.names:
            continue
        times: list[tuple[float, float]] = []
        for _ in range(arguments.rounds + 1):
            times.append((seconds(convatlas.create_model, ours), seconds(timm.create_model, theirs)))
        mine, other = (statistics.median(column) for column in zip(*times[1:], strict=True))
        ratios.append(other / mine)
        print(
            f"{ours:<24} {mine:7.3f} s   timm {theirs:<28} {other:7.3f} s   {other / mine:5.2f}x", flush=True
        )
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"geometric mean {mean:.2f}x, smallest {min(ratios):.2f}x, of {len(ratios)} networks")


if __name__ == "__main__":
    main()
