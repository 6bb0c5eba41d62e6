"""How good the choice of `choose --data` is: regret and coverage over many small tasks.

A task is a random subset of the classes and images of digits, of Fashion-MNIST, or of windows of photographs.
What `choose` estimates by cross-validation on its few images (the same functions, on features that are
computed once) is compared with what each candidate does on held-out images, 2,000 where there are so many.

    python benchmarks/choose_tasks.py --tasks 50
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from typing import Any

import numpy as np
import torch

import convatlas
from convatlas.choosing.baselines import commonest, neighbours, simple_features, thumbnails
from convatlas.choosing.candidates import NetworkOption, open_option
from convatlas.choosing.estimate import marked, rate
from convatlas.data.sets import ImageSet, Source
from convatlas.metrics.linear_probe import cross_predict, fit_probe, make_folds
from convatlas.training.distributed import Ranks
from convatlas.training.head_probe import features_of
from photo_tasks import PHOTOS, PhotoTask, make_windows

NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
PX = 128


@dataclasses.dataclass
class Pool:
    name: str
    source: Source
    features: dict[str, np.ndarray[Any, Any]]
    is_test: np.ndarray[Any, Any]


def load_pools(fashion: int, networks: tuple[str, ...]) -> list[Pool]:
    digits = convatlas.load_source("digits")
    pools = [_pool("digits", digits, 10_000, 10_000)]
    if fashion:
        pools.append(_pool("fashion-mnist", convatlas.load_source("fashion-mnist"), fashion, fashion))
    windows = make_windows(PhotoTask(0, tuple(sorted(PHOTOS)), 60, 120, 0.8))
    images, labels, masks = [], [], []
    names = sorted(PHOTOS)
    for split in ("train", "test"):
        for image, label in zip(*windows[split], strict=True):
            tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            resized = torch.nn.functional.interpolate(tensor, (PX, PX), mode="bilinear", antialias=True)
            images.append(resized[0].round().to(torch.uint8))
            labels.append(names.index(label))
            masks.append(split == "test")
    samples = ImageSet(torch.stack(images), torch.tensor(labels))
    source = Source("photographs", samples, samples, tuple(names), "0" * 64, (3, PX, PX))
    pools.append(Pool("photographs", source, {}, np.array(masks)))
    for pool in pools:
        for network in networks:
            option = NetworkOption(network, "published", PX, 0, 1.0, (3, PX, PX))
            opened = open_option(option, pool.source)
            ranks = Ranks(torch.device("cpu"))
            pool.features[network] = features_of(
                opened.net, opened.source.train, opened.eval_transform, ranks
            ).numpy()
            print(pool.name, network, pool.features[network].shape, flush=True)
        images = thumbnails(pool.source.train, np.arange(len(pool.source.train)))
        pool.features["pixels"] = images.reshape(len(images), -1)
        pool.features["simple"] = simple_features(images)
    return pools


def _pool(name: str, source: Source, train: int, test: int) -> Pool:
    both = [source.train, source.test]
    images = torch.cat([part.images[:count] for part, count in zip(both, (train, test), strict=True)])
    labels = torch.cat([part.labels[:count] for part, count in zip(both, (train, test), strict=True)])
    samples = ImageSet(images, labels)
    mask = np.arange(len(labels)) >= min(train, len(source.train))
    if name == "digits":  # few: everything outside of a task is held out
        mask = np.ones(len(labels), dtype=bool)
    return Pool(name, dataclasses.replace(source, train=samples, test=samples), {}, mask)


def run_task(pool: Pool, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 7])
    labels = pool.source.train.labels.numpy()
    count = int(rng.integers(3, len(pool.source.class_names) + 1))
    classes = np.sort(rng.choice(len(pool.source.class_names), count, replace=False))
    size = int(np.exp(rng.uniform(np.log(8), np.log(60))))
    free = [np.flatnonzero((labels == k) & (~pool.is_test | (pool.name == "digits"))) for k in classes]
    rows = np.concatenate([rng.permutation(each)[:size] for each in free])
    held = np.flatnonzero(np.isin(labels, classes) & pool.is_test)
    held = np.setdiff1d(held, rows)
    held = rng.permutation(held)[:2_000]
    y, truth = np.searchsorted(classes, labels[rows]), np.searchsorted(classes, labels[held])
    folds = make_folds(y, min(10, len(y)), seed=seed)
    found = []
    for name, table in pool.features.items():
        x, new = table[rows], table[held]
        probe = fit_probe(x, y, count, seed=seed)
        answers = cross_predict(x, y, count, folds, probe.strength).argmax(axis=1)
        error, interval, _ = rate(marked(answers, y))
        true = float((probe.logits(new).argmax(axis=1) != truth).mean())
        found.append((name, error, interval, true))
    answers = neighbours(pool.features["pixels"][rows], y, count, folds)
    both = np.concatenate([pool.features["pixels"][rows], pool.features["pixels"][held]])
    one = neighbours(both, np.concatenate([y, truth]), count, [np.arange(len(y), len(both))])[len(y) :]
    found.append(("neighbours", *rate(marked(answers, y))[:2], float((one != truth).mean())))
    answers = commonest(y, count, folds)
    found.append(("commonest", *rate(marked(answers, y))[:2], float((truth != answers[0]).mean())))
    best = min(found, key=lambda each: each[1])
    regret = best[3] - min(each[3] for each in found)
    covered = [low <= true <= high for _, _, (low, high), true in found]
    task = f"{pool.name}, {count} classes, {len(rows)} images, {len(held)} held out"
    print(
        f"{seed:3d} {task:60s} {best[0]:20s} regret {regret:.3f} true {best[3]:.3f} est {best[1]:.3f}",
        flush=True,
    )
    return {
        "pool": pool.name,
        "regret": regret,
        "covered": covered[found.index(best)],
        "all": covered,
        "bias": [each[1] - each[3] for each in found if each[0] in NETWORKS],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument(
        "--fashion", type=int, default=2_000, help="images to learn from and to test on; 0 for none"
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    options = parser.parse_args()
    pools = load_pools(options.fashion, tuple(options.networks))
    rows = [run_task(pools[seed % len(pools)], seed) for seed in range(options.tasks)]
    print(f"\n{len(rows)} tasks; torch {torch.__version__}, numpy {np.__version__}, {platform.processor()}")
    summarise("all", rows)
    for name in dict.fromkeys(row["pool"] for row in rows):
        summarise(name, [row for row in rows if row["pool"] == name])


def summarise(name: str, rows: list[dict[str, Any]]) -> None:
    regrets = np.array([row["regret"] for row in rows])
    print(f"{name}: {len(rows)} tasks")
    print(f"  regret at most 1 point in {(regrets <= 0.01).mean():.0%}, mean {regrets.mean():.4f}")
    print(f"  the interval of the choice covers the truth in {np.mean([row['covered'] for row in rows]):.0%}")
    print(f"  the intervals of all cover it in {np.concatenate([row['all'] for row in rows]).mean():.1%}")
    bias = np.concatenate([row["bias"] for row in rows]).mean()
    print(f"  estimate less truth, of networks: {bias:+.4f}")


if __name__ == "__main__":
    main()
