"""Which network to take for a user's images: probes by cross-validation, then short fine-tunings."""

from __future__ import annotations

import dataclasses
import math
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convatlas.catalog.index import find_entry
from convatlas.choosing.baselines import commonest, neighbours, regress, simple_features, thumbnails
from convatlas.choosing.candidates import NetworkOption, Opened, find_options, open_option
from convatlas.choosing.choose import Clock, Limits
from convatlas.choosing.estimate import DataCandidate, DataSelection, compare_first, marked, rate
from convatlas.data.folder import TEST_NAMES, find_split_folder
from convatlas.data.sets import Chosen, DataError, Samples, Source, choose_rows, counted
from convatlas.data.sources import load_source
from convatlas.metrics.linear_probe import Ints, cross_predict, fit_probe, make_folds
from convatlas.predict.load import load_network
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import output_table
from convatlas.training.head_probe import features_of, probed_layer
from convatlas.training.train import train
from convatlas.weights.errors import WeightsError

FOLDS = 10
MOST_IMAGES = 2_000
"""More images than that make estimates little better, and much later."""
PROBE_SHARE = 0.6
"""Share of the time for features; the rest is for fine-tuning."""
LEAST_IMAGES = 100
RIVALS = 3
"""Networks that a short fine-tuning is tried on."""
HELD_SHARE, MOST_HELD = 0.25, 500
BACKWARD = 4.0
"""Times that a step of training takes of a forward pass."""
FEW_A_CLASS = 5

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is asked, and how it is measured.

    Attributes:
        source: its `train` holds the images that estimates are of, its `test` too.
        labels: (N,).
        folds: rows of each.
        limits: on time and size.
        engine: that latencies are for.
        threads: that work on an image.
        seed: of folds and trainings.
        deadline: on the clock of `time.monotonic`, s.
        say: is told what is done.
    """

    source: Source
    labels: Ints
    folds: list[Ints]
    limits: Limits
    engine: str | None
    threads: int
    seed: int
    deadline: float
    say: Say

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.source.class_names)

    @property
    def left(self) -> float:
        """Time left, s."""
        return self.deadline - time.monotonic()


@dataclasses.dataclass(frozen=True, eq=False)
class Probed:
    """A network whose features were computed.

    Attributes:
        option: the network.
        candidate: how good its probe is.
        seconds: for one image through the network, forward.
    """

    option: NetworkOption
    candidate: DataCandidate
    seconds: float


def choose_by_data(
    data: str | Source,
    names: str | Sequence[str] = "*",
    limits: Limits | None = None,
    *,
    minutes: float = 5.0,
    engine: str | None = None,
    threads: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    download: bool = False,
    say: Say | None = None,
) -> DataSelection:
    """Says which network to take for some images, and how good it will be on new ones.

    Every network that fits, and whose weights are here, gets a probe: logistic regression on its frozen
    features, by 10-fold cross-validation. The best are fine-tuned shortly, by successive halving, while there
    is time. Beside them stand what any network has to beat: the commonest class, nearest neighbours, logistic
    regression on pixels and on simple features, and the largest network that fits.

    Args:
        data: a data set by name, or a `Source`. Where a folder has no split of its own, all of its images are
            used, else those to train on.
        names: names, aliases or patterns of networks, and folders of runs.
        limits: that a network must fit; published accuracy is not looked at.
        minutes: that it may take.
        engine: that latencies are for, as `choose` takes it.
        threads: that work on an image; None for `torch.get_num_threads()`.
        data_dir: where small data sets lie.
        seed: of folds and trainings.
        download: fetch published weights that are not here from the hub.
        say: is told what is done, a line each.

    Raises:
        UnknownNameError: no network, or no data set, has such a name.
        DataError: the data cannot be used; says why, and what would help.
        ValueError: an argument is out of its range.
    """
    began, limits = time.monotonic(), limits or Limits()
    if not 0.0 < minutes < math.inf:
        raise ValueError(f"`minutes`={minutes!r}; expected more than 0")
    if limits.min_top1 is not None:
        raise ValueError(
            f"`min_top1`={limits.min_top1:g} is of published accuracies; with `data` it has no meaning"
        )
    say = say or (lambda _: None)
    source = read_pool(data, data_dir, seed)
    options, dropped = find_options(names, source, limits, download)
    options, timed = _fast_enough(options, limits, engine, threads or torch.get_num_threads(), dropped)
    task = _make_task(source, options, limits, engine, threads, seed, began + 60.0 * minutes, say)
    baselines = measure_baselines(task)
    probed = _probe_all([each for each in options if each.kind != "scratch"], task, timed, dropped)
    tuned = _tune(probed, [each for each in options if each.kind == "scratch"], task, timed)
    found = [*(each.candidate for each in probed), *tuned]
    ranked = sorted(
        [*found, *baselines, *_largest(found)], key=lambda each: (each.error, each.baseline, each.params)
    )
    chosen = DataSelection(
        tuple(ranked),
        compare_first(tuple(ranked)),
        dropped,
        "",
        source.name,
        len(task.labels),
        task.num_classes,
        time.monotonic() - began,
        limits,
        tuple(_notes(source, task)),
    )
    best = chosen.best
    command = "" if best is None else _command(best, options, source, chosen.data)
    return dataclasses.replace(chosen, command=command)


def read_pool(data: str | Source, data_dir: str | Path | None, seed: int) -> Source:
    """The images that estimates are of, as both splits of a source.

    Raises:
        DataError: there are too few images, or all are of one class or alike.
    """
    source = load_source(data, data_dir=data_dir, on_bad_image="skip") if isinstance(data, str) else data
    pool: Samples = source.train
    kind, _, path = source.name.partition(":")
    if kind == "folder" and find_split_folder(Path(path).expanduser(), TEST_NAMES) is None:
        pool = Joined(source.train, source.test)
    labels = pool.labels.numpy()
    counts = np.bincount(labels, minlength=len(source.class_names))
    if (counts > 0).sum() < 2:
        raise DataError(f"{source.name}: its images are all of one class; a choice needs at least two")
    few = [name for name, count in zip(source.class_names, counts.tolist(), strict=True) if count < 2]
    if few:
        raise DataError(
            f"{source.name}: class {few[0]!r} has {counted(int(counts.min()), 'image')}"
            + (f", and {len(few) - 1} more classes have fewer than 2" if len(few) > 1 else "")
            + "; cross-validation needs 2 of each, and 10 are useful: add images, or leave the class out"
        )
    if len(labels) > MOST_IMAGES:
        pool = choose_rows(pool, _stratified(labels, MOST_IMAGES, seed))
    first = pool.image(0)
    step = max(1, len(labels) // 50)
    sample = [pool.image(row) for row in range(0, len(pool), step)]
    if all(image.shape == first.shape and torch.equal(image, first) for image in sample):
        raise DataError(f"{source.name}: its images are all alike; there is nothing to tell apart")
    return dataclasses.replace(source, train=pool, test=pool)


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """The images of two splits, one after the other."""

    first: Samples
    second: Samples

    @property
    def labels(self) -> torch.Tensor:
        """(N,) of int64."""
        return torch.cat([self.first.labels, self.second.labels])

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.first) + len(self.second)

    def image(self, index: int) -> torch.Tensor:
        """The image of a sample: (C, H, W) of uint8.

        Raises:
            ImageError: it cannot be read.
        """
        count = len(self.first)
        return self.first.image(index) if index < count else self.second.image(index - count)

    def name(self, index: int) -> str:
        """Where a person finds the image."""
        count = len(self.first)
        return self.first.name(index) if index < count else self.second.name(index - count)


def measure_baselines(task: Task) -> list[DataCandidate]:
    """What any network has to beat, cross-validated."""
    began = time.monotonic()
    images = thumbnails(task.source.train, np.arange(len(task.labels)))
    small, pixels = simple_features(images), images.reshape(len(images), -1)
    read_s = (time.monotonic() - began) / len(images)
    count, folds, labels = task.num_classes, task.folds, task.labels
    found: list[DataCandidate] = []

    def add(name: str, params: int, answer: Callable[[], Ints]) -> None:
        task.say(f"baseline: {name}")
        started = time.monotonic()
        right = marked(answer(), labels)
        took = time.monotonic() - started
        error, bounds, seen = rate(right)
        each = 1e3 * (read_s if params else 0.0)
        found.append(DataCandidate(name, "", True, error, bounds, each, "", params, None, took, seen, right))

    add("commonest class", 0, lambda: commonest(labels, count, folds))
    add("nearest neighbours on pixels", pixels.size, lambda: neighbours(pixels, labels, count, folds))
    add(
        "logistic regression on pixels",
        count * (pixels.shape[1] + 1),
        lambda: regress(pixels, labels, count, folds, task.seed),
    )
    add(
        "logistic regression on simple features",
        count * (small.shape[1] + 1),
        lambda: regress(small, labels, count, folds, task.seed),
    )
    return found


def probe(option: NetworkOption, opened: Opened, task: Task, timed: tuple[float | None, str]) -> Probed:
    """Computes a network's features, and cross-validates a linear classifier on them."""
    task.say(f"{option.network}: features of {len(task.labels):,} images")
    began = time.monotonic()
    ranks = Ranks(torch.device("cpu"))
    features = features_of(opened.net, opened.source.train, opened.eval_transform, ranks).numpy()
    seconds = (time.monotonic() - began) / len(task.labels)
    strength = fit_probe(features, task.labels, task.num_classes, seed=task.seed).strength
    logits = cross_predict(features, task.labels, task.num_classes, task.folds, strength)
    right = marked(logits.argmax(axis=1), task.labels)
    took = time.monotonic() - began
    return Probed(option, _candidate(option, "probe", right, timed, took), seconds)


def _candidate(
    option: NetworkOption, recipe: str, right: NDArray[np.int8], timed: tuple[float | None, str], took: float
) -> DataCandidate:
    error, bounds, seen = rate(right)
    seconds, engine = timed
    latency = None if seconds is None else 1e3 * seconds
    where = (option.params, option.px or option.input_size[1])
    return DataCandidate(
        option.network, recipe, False, error, bounds, latency, engine, *where, took, seen, right
    )


def _fast_enough(
    options: list[NetworkOption],
    limits: Limits,
    engine: str | None,
    threads: int,
    dropped: dict[str, tuple[str, ...]],
) -> tuple[list[NetworkOption], dict[str, tuple[float | None, str]]]:
    """Those that keep within the limit on time, and the time of each."""
    timed: dict[str, tuple[float | None, str]] = {}
    kept: list[NetworkOption] = []
    for option in options:
        name = load_network(option.network).name if option.kind == "run" else option.network
        size = (find_entry(name).input_size[0], *option.input_size[1:])  # its time hardly depends on C
        clock = Clock(name, size, 1, threads, anew=False)
        found = clock.known(engine) or clock.measured(engine, limits.max_latency)
        seconds = found[0]
        if limits.max_latency is not None and (seconds is None or seconds > limits.max_latency):
            reason = f"slower than {limits.max_latency * 1e3:g} ms"
            dropped[reason] = (*dropped.get(reason, ()), option.network)
            continue
        timed[option.network] = found
        kept.append(option)
    return kept, timed


def _make_task(
    source: Source,
    options: list[NetworkOption],
    limits: Limits,
    engine: str | None,
    threads: int | None,
    seed: int,
    deadline: float,
    say: Say,
) -> Task:
    labels = source.train.labels.numpy().astype(np.int64)
    folds = make_folds(labels, min(FOLDS, len(labels)), seed=seed)
    cores = threads or torch.get_num_threads()
    return Task(source, labels, folds, limits, engine, cores, seed, deadline, say)


def _probe_all(
    options: list[NetworkOption],
    task: Task,
    timed: dict[str, tuple[float | None, str]],
    dropped: dict[str, tuple[str, ...]],
) -> list[Probed]:
    """Probes networks, the smallest first, as many as there is time for."""
    found: list[Probed] = []
    budget = PROBE_SHARE * task.left
    began, per_mac = time.monotonic(), 0.0
    for option in options:
        spent = time.monotonic() - began
        expected = per_mac * option.macs * len(task.labels)
        reason = ""
        if found and spent + expected > budget:
            reason = "for which there was no time (--minutes)"
        else:
            try:
                opened = open_option(option, task.source)
                if probed_layer(opened.net) is None:
                    reason = "whose classifier is not one linear layer"
                else:
                    found.append(probe(option, opened, task, timed[option.network]))
                    per_mac = max(per_mac, found[-1].seconds / option.macs)
            except WeightsError:
                reason = "whose weights cannot be had"
            except ValueError as error:
                reason = f"that do not fit ({str(error)[:120]})"
        if reason:
            dropped[reason] = (*dropped.get(reason, ()), option.network)
    return found


def _tune(
    probed: list[Probed],
    scratch: list[NetworkOption],
    task: Task,
    timed: dict[str, tuple[float | None, str]],
) -> list[DataCandidate]:
    """Short fine-tunings of the best, by successive halving, and small networks from scratch.

    One split serves all: what is trained on three quarters of the images answers to the others. Its error
    is that of the network's probe by cross-validation, moved by how much it differs from the probe's there.
    """
    published = sorted(
        (each for each in probed if each.option.kind == "published"), key=lambda each: each.candidate.error
    )
    held = _held_rows(task)
    rest = np.setdiff1d(np.arange(len(task.labels)), held)
    rounds: list[tuple[Probed, float]] = [(each, 0.0) for each in published[:RIVALS]]
    found: list[DataCandidate] = []
    for share in (0.3, 1.0):
        scored: list[tuple[Probed, float]] = []
        for rival, _ in rounds:
            images = share * _tuning_images(len(rest)) * BACKWARD + len(held) * 2 + len(rest)
            if images * rival.seconds > task.left:
                continue
            settings = {} if share == 1.0 else {"epochs": max(1, round(share * _epochs(len(rest))))}
            right, took = _trained(rival.option, "finetune", rest, held, task, settings)
            scored.append((rival, float((right[held] == 1).mean())))
            if share == 1.0:
                found.append(_moved(rival, right, held, timed, took))
        # The better half goes on; of one rival, there is nothing to halve.
        rounds = sorted(scored, key=lambda pair: -pair[1])[: max(1, len(scored) // 2)]
    for option in scratch:
        if task.left > 30.0:
            steps = {"epochs": max(3, min(60, round(1.5e9 * task.left / 60.0 / (option.macs * len(rest)))))}
            right, took = _trained(option, None, rest, held, task, steps)
            found.append(_candidate(option, "from scratch", right, timed[option.network], took))
    return found


def _moved(
    rival: Probed,
    right: NDArray[np.int8],
    held: Ints,
    timed: dict[str, tuple[float | None, str]],
    took: float,
) -> DataCandidate:
    """A fine-tuning, whose error is the probe's and the difference on the images that both answered."""
    own = _candidate(rival.option, "finetune", right, timed[rival.option.network], took)
    base = rival.candidate
    there = 1.0 - float((base.right[held] == 1).mean())
    error = min(1.0, max(0.0, base.error + own.error - there))
    half = (own.interval[1] - own.interval[0]) / 2.0
    bounds = (max(0.0, min(error, error - half)), min(1.0, error + half))
    return dataclasses.replace(own, error=error, interval=bounds)


def _trained(
    option: NetworkOption,
    recipe: str | None,
    rest: Ints,
    held: Ints,
    task: Task,
    settings: dict[str, Any],
) -> tuple[NDArray[np.int8], float]:
    """Trains a network on some images; a row of right answers to the others, and the time that it took."""
    task.say(f"{option.network}: {recipe or 'training from scratch'} on {len(rest):,} images")
    began = time.monotonic()
    train_set, held_set = (
        Chosen(task.source.train, rows, task.source.train.labels[rows]) for rows in (rest, held)
    )
    source = dataclasses.replace(task.source, name="images", train=train_set, test=held_set)
    with tempfile.TemporaryDirectory(prefix="convatlas-choose-") as folder:
        run = train(
            option.network,
            data=source,
            recipe=recipe,
            seed=task.seed,
            out=folder,
            pretrained=option.kind == "published",
            input_size=option.px,
            progress=False,
            **settings,
        )
        opened = open_option(dataclasses.replace(option, network=str(run.folder), kind="run"), source)
    ranks = Ranks(torch.device("cpu"))
    opened.net.eval()
    logits, _ = output_table(opened.net, held_set, opened.eval_transform, ranks)
    return marked(logits.argmax(dim=1).numpy(), task.labels, held), time.monotonic() - began


def _largest(found: list[DataCandidate]) -> list[DataCandidate]:
    """The network with the most parameters, as what somebody would take who does not measure."""
    probes = [each for each in found if each.recipe == "probe"]
    if not probes:
        return []
    largest = max(probes, key=lambda each: each.params)
    return [
        dataclasses.replace(
            largest, network=f"largest that fits: {largest.network}", recipe="", baseline=True
        )
    ]


def _held_rows(task: Task) -> Ints:
    count = len(task.labels)
    wanted = min(MOST_HELD, max(1, round(HELD_SHARE * count)))
    rows: list[int] = []
    for fold in task.folds:
        if len(rows) >= wanted:
            break
        rows += fold.tolist()
    return np.sort(np.array(rows, dtype=np.int64))


def _epochs(count: int) -> int:
    from convatlas.training.recipes.find import find_recipe
    from convatlas.training.recipes.suit import FINETUNE, suited

    return suited(find_recipe("", FINETUNE), count, {}).epochs


def _tuning_images(count: int) -> int:
    return _epochs(count) * count


def _stratified(labels: Ints, count: int, seed: int) -> Ints:
    folds = make_folds(labels, max(2, math.ceil(len(labels) / count)), seed=seed)
    return np.sort(folds[0])


def _notes(source: Source, task: Task) -> list[str]:
    counts = np.bincount(task.labels, minlength=task.num_classes)
    notes: list[str] = []
    if counts.min() < FEW_A_CLASS:
        name = source.class_names[int(counts.argmin())]
        notes.append(
            f"class {name!r} has {counted(int(counts.min()), 'image')}: its recognition is hardly measured"
        )
    if len(task.labels) < LEAST_IMAGES:
        notes.append(f"{counted(len(task.labels), 'image')} leave wide intervals; more would narrow them")
    if source.skipped:
        notes.append(f"{counted(len(source.skipped), 'image')} cannot be read and were left out")
    return notes


def _command(best: DataCandidate, options: list[NetworkOption], source: Source, data: str) -> str:
    option = next(each for each in options if each.network == best.network)
    if option.kind == "run":
        return f"convatlas eval {shlex.quote(best.network)} --data {shlex.quote(data)}"
    words = ["convatlas", "train", best.network, "--data", data]
    if option.kind == "published":
        words += ["--pretrained", "--recipe", best.recipe]
    if option.px is not None and source.image_size is not None:
        words += ["--input", str(option.px)]
    return shlex.join(words)
