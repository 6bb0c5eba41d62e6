"""The table of all 735 cells of the space `tiny` on Fashion-MNIST, row by row.

    ./run python benchmarks/cells.py run --rows 0-734 --seeds 3     # goes on where it stopped
    ./run python benchmarks/cells.py check --rows 5,100,700         # trains rows again and compares

A row is one training: the cell's text, the seed, and the validation accuracy and loss of each epoch. It is
appended and synced when it is finished, so that the program can be stopped at any time. The protocol's hash
stands in each row, and a table of another protocol is refused.
"""

import argparse
import csv
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch

from convatlas.search import Architecture, find_space
from convatlas.search.trainings import load_split
from convatlas.training.train import train

TABLE = Path(__file__).parent / "cells.csv"
PROTOCOL = {
    "space": "tiny",
    "space_options": {"cells": 1, "chans": 8},
    "data": "fashion-mnist",
    "validation_share": 0.2,
    "split_seed": 0,
    "train_images": 10_000,
    "recipe": "modern",
    "epochs": 3,
    "batch_size": 128,
    "threads": 1,
}
HASH = hashlib.sha256(json.dumps(PROTOCOL, sort_keys=True).encode()).hexdigest()[:12]
FIELDS = ("protocol", "cell", "seed", "accuracies", "losses")


def distinct_cells() -> list[Architecture]:
    """One architecture of each key, in the order of encodings."""
    space = find_space(PROTOCOL["space"], **PROTOCOL["space_options"])
    found = {}
    for choices in itertools.product(*map(range, space.sizes)):
        found.setdefault(space.key(choices), Architecture(space, choices))
    return list(found.values())


def read_rows() -> dict[tuple[str, int], dict[str, str]]:
    if not TABLE.is_file():
        return {}
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    other = {row["protocol"] for row in rows} - {HASH}
    if other:
        raise SystemExit(f"{TABLE}: is of protocol {', '.join(other)}; this is {HASH}")
    return {(row["cell"], int(row["seed"])): row for row in rows}


def measure(found: Architecture, seed: int, split) -> dict[str, str]:
    torch.set_num_threads(PROTOCOL["threads"])
    name, model = found.network()
    folder = tempfile.mkdtemp(prefix="cells-")
    try:
        run = train(
            name,
            data=split.search,
            recipe=PROTOCOL["recipe"],
            seed=seed,
            out=folder,
            model=model,
            workers=0,
            epochs=PROTOCOL["epochs"],
            batch_size=PROTOCOL["batch_size"],
        )
        lines = [line for line in run.metrics() if "test_accuracy" in line]
    finally:
        shutil.rmtree(folder)
    return {
        "protocol": HASH,
        "cell": found.text,
        "seed": str(seed),
        "accuracies": " ".join(f"{line['test_accuracy']:.4f}" for line in lines),
        "losses": " ".join(f"{line['test_loss']:.4f}" for line in lines),
    }


def append(row: dict[str, str]) -> None:
    begins = not TABLE.is_file() or TABLE.stat().st_size == 0
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if begins:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def parse_rows(text: str) -> list[int]:
    rows: list[int] = []
    for split in text.split(","):
        first, _, last = split.partition("-")
        rows += range(int(first), int(last or first) + 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "check"])
    parser.add_argument("--rows", default="0-734")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    cells = distinct_cells()
    split = load_split(
        PROTOCOL["data"],
        options.data_dir,
        PROTOCOL["validation_share"],
        PROTOCOL["split_seed"],
        PROTOCOL["train_images"],
    )
    known = read_rows()
    for seed, i in itertools.product(range(options.seeds), parse_rows(options.rows)):
        place = (cells[i].text, seed)
        if options.what == "run" and place not in known:
            append(measure(cells[i], seed, split))
        if options.what == "check" and place in known:
            again = measure(cells[i], seed, split)
            print(i, seed, known[place]["accuracies"], again["accuracies"], known[place] == again)


if __name__ == "__main__":
    main()
