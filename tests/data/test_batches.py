import dataclasses
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from convatlas.data import batches
from convatlas.data.batches import Batch, read_batches
from convatlas.data.image_files import ImageError
from convatlas.data.sets import DataError, ImageSet, Samples
from convatlas.data.sources import load_source

Make = Callable[..., Path]


@dataclasses.dataclass(frozen=True)
class Corner:
    """Cuts out the top left corner, and writes the sample's number into its first pixel."""

    def __call__(self, image: Tensor, sample: int, px: int | None) -> Tensor:
        corner = image[:, :px, :px].clone()
        corner[:, 0, 0] = sample
        return corner


@pytest.fixture
def images() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8, generator=draw)
    return ImageSet(pixels, torch.arange(50) % 7)


@pytest.fixture
def image_files(make_folder: Make) -> Samples:
    return load_source(f"folder:{make_folder()}").train


def plan_of(size: int, batch: int, px: int | None = None) -> list[tuple[np.ndarray, int | None]]:
    order = np.random.default_rng(1).permutation(size)
    return [(order[start : start + batch], px) for start in range(0, size, batch)]


def gather(read: list[Batch]) -> tuple[Tensor, Tensor, list[int]]:
    samples = np.concatenate([batch.samples for batch in read]).tolist()
    return torch.cat([batch.images for batch in read]), torch.cat([batch.labels for batch in read]), samples


def test_images_in_memory_are_picked(images: ImageSet) -> None:
    read = list(read_batches(images, plan_of(50, 16)))
    assert [len(batch.labels) for batch in read] == [16, 16, 16, 2]
    pixels, labels, samples = gather(read)
    assert samples == np.random.default_rng(1).permutation(50).tolist()
    assert torch.equal(pixels, images.images[samples])
    assert torch.equal(labels, images.labels[samples])


def test_images_in_memory_are_resized_where_the_plan_says_so(images: ImageSet) -> None:
    flat = ImageSet(torch.full_like(images.images, 90), images.labels)
    (batch,) = read_batches(flat, [(np.array([3, 1]), 12)])
    assert batch.images.shape == (2, 1, 12, 12)
    assert batch.images.dtype == torch.uint8
    assert (batch.images == 90).all()
    (same,) = read_batches(images, [(np.array([3, 1]), 8)])
    assert torch.equal(same.images, images.images[[3, 1]])


def test_images_in_memory_are_fitted_one_by_one(images: ImageSet) -> None:
    (batch,) = read_batches(images, [(np.array([7, 4]), 5)], Corner())
    expected = images.images[[7, 4], :, :5, :5]
    expected[:, :, 0, 0] = torch.tensor([[7], [4]])
    assert torch.equal(batch.images, expected)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_batches_do_not_depend_on_the_workers(image_files: Samples, workers: int) -> None:
    plan = plan_of(len(image_files), 7, px=16) + plan_of(len(image_files), 5, px=12)
    alone = list(read_batches(image_files, plan, Corner()))
    together = list(read_batches(image_files, plan, Corner(), workers=workers))
    assert len(alone) == len(together) == len(plan)
    for first, second in zip(alone, together, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.labels, second.labels)
        assert np.array_equal(first.samples, second.samples)


def test_images_are_decoded_and_fitted(image_files: Samples) -> None:
    (batch,) = read_batches(image_files, [(np.array([5, 2]), 10)], Corner())
    assert torch.equal(batch.images[1, :, 1:], image_files.image(2)[:, 1:10, :10])
    assert batch.images[:, 0, 0, 0].tolist() == [5, 2]
    assert batch.labels.tolist() == image_files.labels[[5, 2]].tolist()


def test_reading_leaves_torchs_random_numbers_alone(image_files: Samples) -> None:
    before = torch.random.get_rng_state()
    list(read_batches(image_files, plan_of(len(image_files), 8), workers=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_workers_end_with_their_reader(image_files: Samples) -> None:
    before = children()  # Of other tests in this process, such as multiprocessing's resource tracker.
    reading = read_batches(image_files, plan_of(len(image_files), 2), workers=2)
    next(reading)
    assert len(children() - before) == 2
    reading.close()
    assert children() == before


def children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(word) for word in text.split()}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=["term", "int", "usr1"]
)
def test_workers_go_on_when_training_is_asked_to_stop(image_files: Samples, number: signal.Signals) -> None:
    plan = plan_of(len(image_files), 2)
    before = children()
    reading = read_batches(image_files, plan, workers=1)
    read = [next(reading)]
    (worker,) = children() - before
    # From another process than its parent, as a scheduler sends it.
    sender = os.fork()
    if sender == 0:
        os.kill(worker, number)
        os._exit(0)
    os.waitpid(sender, 0)
    time.sleep(0.2)
    read += list(reading)
    assert len(read) == len(plan)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_goes_bad_is_refused_in_one_line(image_files: Samples, workers: int) -> None:
    path = Path(image_files.name(4))
    path.write_bytes(b"<html>")
    with pytest.raises(ImageError, match=rf"^{path}: is no image in a format that is read \([^\n]*$"):
        list(read_batches(image_files, plan_of(len(image_files), 5), Corner(), workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_goes_bad_is_left_out(image_files: Samples, workers: int) -> None:
    path = Path(image_files.name(4))
    path.unlink()
    plan = [(np.array([3, 4, 5]), 10), (np.array([4]), 10)]
    first, second = read_batches(image_files, plan, Corner(), workers=workers, on_bad_image="skip")
    assert first.samples.tolist() == [3, 5]
    assert first.labels.tolist() == image_files.labels[[3, 5]].tolist()
    assert [(entry.path, entry.reason) for entry in first.skipped] == [(str(path), "no such file")]
    assert second.images.shape == (0, 3, 10, 10)
    assert len(second.labels) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_several_sizes_need_one(make_folder: Make, make_image: Make, workers: int) -> None:
    root = make_folder()
    make_image(root / "cat" / "wide.png", width=30)
    part = load_source(f"folder:{root}", test_share=0.1).train
    message = r"wide\.png has the shape \(3, 20, 30\) and .* \(3, 20, 24\); a batch needs one"
    with pytest.raises(DataError, match=message):
        list(read_batches(part, [(np.arange(len(part)), None)], workers=workers))


@dataclasses.dataclass(frozen=True)
class Fatal:
    """Kills its process at sample 4."""

    def __call__(self, image: Tensor, sample: int, px: int | None) -> Tensor:
        if sample == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return image


# A batch that was on its way leaves a socket of multiprocessing's open, which is seen when it is collected.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_worker_that_dies_ends_it_in_one_line(image_files: Samples) -> None:
    with pytest.raises(DataError, match=r"^a worker that reads images died: fewer --workers need"):
        list(read_batches(image_files, plan_of(len(image_files), 5), Fatal(), workers=1))
    gc.collect()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("worker is killed by signal: Bus error.", "ran out of shared memory", id="memory"),
        pytest.param("DataLoader timed out after 300 seconds", "gave no batch for 300 s", id="stuck"),
    ],
)
def test_other_failures_of_workers_have_their_own_words(text: str, message: str) -> None:
    assert message in batches._worker_failure(RuntimeError(text))


def test_workers_are_counted_from_0(images: ImageSet) -> None:
    with pytest.raises(ValueError, match="`workers`=-1; expected 0 or more"):
        list(read_batches(images, [], workers=-1))
