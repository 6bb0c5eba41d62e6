import numpy as np
import pytest
import torch

from convatlas.data.counter_random import permutation
from convatlas.training.batch_order import BatchOrder
from convatlas.training.distributed import Ranks

CPU = torch.device("cpu")


def seen(batch_order: BatchOrder, epoch: int, world_size: int) -> list[list[int]]:
    """What all processes together see in each step, in the order of their ranks."""
    each = [batch_order.batches(epoch, Ranks(CPU, rank, world_size)) for rank in range(world_size)]
    return [
        [int(sample) for rank in each for part in rank[number] for sample in part]
        for number in range(batch_order.steps_per_epoch)
    ]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("world_size", [2, 3, 4, 7])
def test_the_order_does_not_depend_on_the_number_of_processes(world_size: int, accumulate: int) -> None:
    batch_order = BatchOrder(num_samples=1001, batch_size=64, num_epochs=2, seed=5, accumulate=accumulate)
    alone = BatchOrder(num_samples=1001, batch_size=64, num_epochs=2, seed=5)
    for epoch in (0, 1):
        assert seen(batch_order, epoch, world_size) == seen(alone, epoch, 1)


def test_an_epoch_holds_each_sample_once_in_its_own_order() -> None:
    batch_order = BatchOrder(num_samples=103, batch_size=10, num_epochs=3, seed=1)
    orders = [np.concatenate(seen(batch_order, epoch, 1)) for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert sorted(order) == list(range(103))
        assert np.array_equal(order, permutation(1, epoch, 103))
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(("count", "batch_size"), [(103, 10), (33, 32), (1438, 32), (5, 10), (60_000, 128)])
def test_batches_are_as_equal_as_can_be(count: int, batch_size: int) -> None:
    batch_order = BatchOrder(num_samples=count, batch_size=batch_size, num_epochs=2, seed=0)
    sizes = [end - begin for begin, end in map(batch_order.bounds, range(batch_order.steps_per_epoch))]
    assert sum(sizes) == count
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // batch_size)
    assert batch_order.num_steps == 2 * len(sizes)


def test_an_epoch_can_begin_in_its_middle() -> None:
    batch_order = BatchOrder(num_samples=100, batch_size=9, num_epochs=1, seed=0)
    alone = Ranks(CPU)
    whole, rest = batch_order.batches(0, alone), batch_order.batches(0, alone, first=7)
    assert [part.tolist() for (part,) in whole[7:]] == [part.tolist() for (part,) in rest]


@pytest.mark.parametrize("world_size", [1, 2])
def test_mixed_samples_are_followed_by_their_partner(world_size: int) -> None:
    batch_order = BatchOrder(num_samples=50, batch_size=10, num_epochs=1, seed=3, accumulate=2, mixes=True)
    order = permutation(3, 0, 50).tolist()
    follower = dict(zip(order, order[1:] + order[:1], strict=True))
    for rank in range(world_size):
        for parts in batch_order.batches(0, Ranks(CPU, rank, world_size)):
            for part in parts:
                assert [follower[sample] for sample in part[:-1].tolist()] == part[1:].tolist()


def test_the_smallest_part() -> None:
    batch_order = BatchOrder(num_samples=103, batch_size=10, num_epochs=1, seed=0, accumulate=2)
    for world_size in (1, 2, 3):
        parts = [
            len(part)
            for rank in range(world_size)
            for step in batch_order.batches(0, Ranks(CPU, rank, world_size))
            for part in step
        ]
        assert batch_order.smallest_part(Ranks(CPU, 0, world_size)) == min(parts)
