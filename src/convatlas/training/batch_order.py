"""Which samples each step sees, as a function of (seed, epoch): no sampler has a place that could be lost.

The batches of an epoch are as equal as they can be, so that none is left over that is too small for batch
normalisation. Each process takes a contiguous part of each batch: all together see the same in the same
order, however many they are.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from numpy.typing import NDArray

from convatlas.data.counter_random import permutation
from convatlas.training.distributed import Ranks

Samples = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class BatchOrder:
    """The order of a whole training.

    Attributes:
        num_samples: N, training images.
        batch_size: images of one step at most, over all processes.
        num_epochs: passes over the images.
        seed: of the order.
        accumulate: parts in which a process computes its share of a batch.
        mixes: whether each part carries one sample more, which its last one is mixed with.
    """

    num_samples: int
    batch_size: int
    num_epochs: int
    seed: int
    accumulate: int = 1
    mixes: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold all samples once."""
        return math.ceil(self.num_samples / self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.num_epochs * self.steps_per_epoch

    def bounds(self, number: int) -> tuple[int, int]:
        """Where the batch `number` of an epoch begins and ends in the epoch's order."""
        count, steps = self.num_samples, self.steps_per_epoch
        return count * number // steps, count * (number + 1) // steps

    def batches(self, epoch: int, ranks: Ranks, first: int = 0) -> list[list[Samples]]:
        """For each step of an epoch, the parts that this process computes one after the other.

        Args:
            epoch: counted from 0.
            ranks: the processes.
            first: steps of the epoch that are done already.
        """
        order = permutation(self.seed, epoch, self.num_samples)
        circle = np.append(order, order[:1])  # The last sample is mixed with the first.
        return [
            [circle[begin : end + self.mixes] for begin, end in self._parts(number, ranks)]
            for number in range(first, self.steps_per_epoch)
        ]

    def smallest_part(self, ranks: Ranks) -> int:
        """Images of the smallest part that any process computes at once."""
        begin, end = self.bounds(0)
        return (end - begin) // ranks.world_size // self.accumulate

    def _parts(self, number: int, ranks: Ranks) -> list[tuple[int, int]]:
        begin, end = self.bounds(number)
        own = ranks.shard(end - begin)
        size, pieces = own.stop - own.start, self.accumulate
        ends = [begin + own.start + size * piece // pieces for piece in range(pieces + 1)]
        return list(itertools.pairwise(ends))
