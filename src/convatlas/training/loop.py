"""The training loop."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.data.augment import random_affine
from convatlas.data.draws import permutation
from convatlas.data.sources import ImageSet, Source, load_source
from convatlas.data.transforms import Transform, card_transform
from convatlas.models.cards import Card
from convatlas.models.lenet import rbf_loss
from convatlas.models.network import Network, check_count
from convatlas.models.registry import create_model, find_card
from convatlas.training.progress import Watcher, silent_watcher
from convatlas.training.recipes import Recipe, find_recipe
from convatlas.training.report import write_report
from convatlas.training.run import METRICS, WEIGHTS, Run, machine, make_run_folder, versions, write_record
from convatlas.training.sgd import sgd_step
from convatlas.weights.files import write_safetensors

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {"softmax": F.cross_entropy, "rbf": rbf_loss}


class TrainingError(ValueError):
    """Training cannot go on; the message says why and what to change."""


def train(
    network: str,
    *,
    data: str = "digits",
    seed: int = 0,
    out: str | Path = "runs",
    watcher: Callable[[int, int], Watcher] = silent_watcher,
    **settings: Any,
) -> Run:
    """Trains a network and leaves a run folder behind.

    The result depends on the arguments, the machine and the number of threads alone: the same give
    bit-identical weights. torch's global random numbers are left as they were.

    Args:
        network: a name or alias in the registry.
        data: a data set, as `convatlas.data.sources.load_source` knows it.
        seed: of the weights, of the order and of augmentation.
        out: folder in which the run folder is made.
        watcher: makes what shows the progress from the number of epochs and of images in all; silence
            by default.
        settings: fields of the recipe to change, for example `epochs=10`.

    Returns:
        The run, with `test_accuracy` as a fraction and `folder`.

    Raises:
        UnknownNameError: no such network, data set or field of a recipe; names the nearest.
        ValueError: a value is out of its range, or the loss is no longer a number.
    """
    card = find_card(network)
    recipe = find_recipe(card.name, settings)
    check_count("seed", seed, least=0)
    source = load_source(data)
    folder = make_run_folder(Path(out), f"{card.name}-{source.name}")
    record: dict[str, Any] = {
        "config": {"network": card.name, "data": source.name, "recipe": dataclasses.asdict(recipe)},
        "settings": settings,
        "seed": seed,
        "versions": versions(),
        "machine": machine(torch.get_num_threads()),
        "data": {"fingerprint": source.fingerprint, "train": len(source.train), "test": len(source.test)},
    }
    write_record(folder, record)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create_model(card.name, num_classes=len(source.class_names))
        shown = watcher(recipe.epochs, recipe.epochs * len(source.train))
        started = time.perf_counter()
        history = fit(net, source, card_transform(card, "digit"), recipe, seed, folder / METRICS, shown)
    record["result"] = {
        "test_accuracy": history[-1]["test_accuracy"],
        "test_loss": history[-1]["test_loss"],
        "train_loss": history[-1]["loss"],
        "seconds": round(time.perf_counter() - started, 2),
    }
    _write_weights(folder, net, card, source, record)
    write_report(folder, card, record, history)
    write_record(folder, record)
    return Run(folder, record)


def fit(
    net: Network[Any],
    source: Source,
    transform: Transform,
    recipe: Recipe,
    seed: int,
    metrics: Path,
    watcher: Watcher,
) -> list[dict[str, float]]:
    """Trains `net` in place and appends a line to `metrics` after each epoch.

    Returns:
        The lines: for each epoch `step`, `epoch`, `loss`, `lr`, `images_per_s`, `test_accuracy`, `test_loss`.

    Raises:
        TrainingError: the loss is infinite or not a number.
    """
    net.to(memory_format=torch.channels_last)
    images = transform.normalise(source.train.images)
    paper = float(transform.normalise(torch.zeros(1, 1, 1, dtype=torch.uint8)).min())  # no ink
    affine = None if recipe.affine is None else dataclasses.asdict(recipe.affine)
    loss_of = LOSSES[recipe.loss]
    params = list(net.parameters())
    velocities = [torch.zeros_like(p) for p in params]
    size, batch = len(source.train), recipe.batch_size
    num_steps = recipe.epochs * math.ceil(size / batch)
    history: list[dict[str, float]] = []
    step, started, trained_s = 0, time.perf_counter(), 0.0
    with watcher, metrics.open("a", encoding="utf-8") as log:
        for epoch in range(recipe.epochs):
            net.train()
            order = permutation(seed, epoch, size)
            epoch_started, total = time.perf_counter(), 0.0
            for start in range(0, size, batch):
                samples = order[start : start + batch]
                x = images[torch.from_numpy(samples)]
                if affine is not None:
                    x = random_affine(x, seed=seed, epoch=epoch, samples=samples, fill=paper, **affine)
                loss = loss_of(net(x), source.train.labels[torch.from_numpy(samples)])
                loss.backward()
                lr, decay = recipe.lr_at(step, num_steps), recipe.weight_decay
                sgd_step(params, velocities, lr=lr, momentum=recipe.momentum, weight_decay=decay)
                step += 1
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss is {value} at step {step} (epoch {epoch + 1}); "
                        f"a smaller `lr` than {recipe.lr} may help"
                    )
                total += value * len(samples)
                seen, elapsed = start + len(samples), time.perf_counter() - epoch_started
                watcher.step(epoch=epoch, images=len(samples), loss=value, images_per_s=seen / elapsed)
            trained_s += time.perf_counter() - epoch_started
            accuracy, test_loss = evaluate(net, source.test, transform, loss_of)
            line = {
                "step": step,
                "epoch": epoch + 1,
                "loss": total / size,
                "lr": recipe.lr_at(step - 1, num_steps),
                "images_per_s": round((epoch + 1) * size / trained_s, 1),
                "test_accuracy": accuracy,
                "test_loss": test_loss,
            }
            history.append(line)
            log.write(json.dumps(line) + "\n")
            log.flush()
            left_s = (time.perf_counter() - started) / (epoch + 1) * (recipe.epochs - epoch - 1)
            watcher.epoch(
                epoch=epoch,
                loss=line["loss"],
                accuracy=accuracy,
                images_per_s=line["images_per_s"],
                left_s=left_s,
            )
    return history


@torch.no_grad()
def evaluate(
    net: Network[Any], part: ImageSet, transform: Transform, loss_of: Loss, batch_size: int = 256
) -> tuple[float, float]:
    """Measures a network: share of correct answers, and mean loss."""
    net.eval()
    correct, total = 0, 0.0
    for start in range(0, len(part), batch_size):
        labels = part.labels[start : start + batch_size]
        logits = net(transform.normalise(part.images[start : start + batch_size]))
        correct += int((logits.argmax(dim=1) == labels).sum())
        total += float(loss_of(logits, labels)) * len(labels)
    return correct / len(part), total / len(part)


def _write_weights(
    folder: Path, net: Network[Any], card: Card, source: Source, record: dict[str, Any]
) -> None:
    metadata = {
        "network": card.name,
        "num_classes": str(len(source.class_names)),
        "class_names": json.dumps(source.class_names),
        "transform": card_transform(card, "digit").record(),
        "paper": f"{card.paper.title} ({card.paper.year}), {card.paper.identifier}",
        "data": source.name,
        "data_fingerprint": source.fingerprint,
        "test_accuracy": str(record["result"]["test_accuracy"]),
        "convatlas": record["versions"]["convatlas"],
    }
    write_safetensors(folder / WEIGHTS, net.state_dict(), metadata)
