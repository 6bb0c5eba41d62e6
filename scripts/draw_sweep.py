"""Draws every network at every level, and networks of torchvision and timm, and says what is wrong with them.

    python scripts/draw_sweep.py [--style blocks] [--theirs 60] [--seed 0] [--save FOLDER]

For each figure: that it can be drawn, that no label overlaps another or the edge, that a second run gives the
same bytes, and how much CPU time it took. A figure that fails is printed; the last line counts.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

import convatlas
from convatlas.catalog.cards import find_card, list_models
from convatlas.drawing import Figure, draw

LEVELS = ("stage", "block", "layer")
SLOW = 2.0


def faults(figure: Figure) -> list[str]:
    """Labels that overlap or are cut."""
    found = [
        f"{label.text!r} is cut"
        for label in figure.labels
        if label.x0 < 0 or label.y0 < 0 or label.x1 > figure.width or label.y1 > figure.height
    ]
    rows = sorted(figure.labels, key=lambda label: label.y0)
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            if b.y0 >= a.y1 - 0.01:
                break
            if a.x0 < b.x1 - 0.01 and b.x0 < a.x1 - 0.01:
                found.append(f"{a.text!r} overlaps {b.text!r}")
    return found


def ours() -> Iterator[tuple[str, Callable[[], nn.Module], object]]:
    for name in list_models():
        yield name, lambda name=name: convatlas.create_model(name), find_card(name).input_size


def theirs(many: int, seed: int) -> Iterator[tuple[str, Callable[[], nn.Module], object]]:
    import timm
    import torchvision

    names = [("torchvision", name) for name in torchvision.models.list_models(module=torchvision.models)]
    names += [("timm", name) for name in timm.list_models()]
    for package, name in random.Random(seed).sample(sorted(names), many):
        if package == "timm":
            size = timm.get_pretrained_cfg(name)
            shape = size.input_size if size is not None else (3, 224, 224)
            yield f"timm.{name}", lambda name=name: timm.create_model(name).eval(), shape
        else:
            yield f"torchvision.{name}", lambda name=name: torchvision.models.get_model(name).eval(), 224


def made(make: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        return make()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--style", default="blocks")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--theirs", type=int, default=0, help="how many networks of torchvision and timm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    bad = count = slow = 0
    subjects = theirs(options.theirs, options.seed) if options.theirs else ours()
    for name, make, size in subjects:
        if options.only not in name:
            continue
        try:
            net = made(make)
        except Exception as error:
            print(f"{name}: cannot be built here: {str(error)[:100]}")
            continue
        for level in options.levels.split(","):
            count += 1
            start = time.process_time()
            try:
                figure = draw(net, size, style=options.style, level=level)
            except Exception as error:
                bad += 1
                print(f"{name} {level}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                continue
            seconds = time.process_time() - start
            slow += seconds > SLOW and level != "layer"
            wrong = faults(figure)
            if draw(net, size, style=options.style, level=level).svg != figure.svg:
                wrong.append("the second run differs")
            bad += bool(wrong)
            if wrong or seconds > SLOW:
                shown = f"{len(wrong)} faults: {'; '.join(wrong[:3])}"
                print(f"{name} {level} {len(figure.svg)} bytes {seconds:.2f} s {shown}", flush=True)
            if options.save:
                figure.save(options.save / f"{name.replace('/', '_')}-{options.style}-{level}.svg")
    print(f"{count} figures of style {options.style}: {bad} with faults, {slow} slower than {SLOW} s")


if __name__ == "__main__":
    main()
