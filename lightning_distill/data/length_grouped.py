"""Samplers that yield whole batches of row numbers, the same plan on every rank.

They are given to a DataLoader as `sampler` with `batch_size=None`, and are a
`DistributedSampler`, so that Lightning neither replaces them nor shards a second time, and
tells them the epoch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler

Lengths = Sequence[int] | np.ndarray


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) outside of distributed training."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class LengthGroupedBatches(DistributedSampler):
    """Training batches of rows of similar length, drawn anew each epoch.

    Rows are shuffled, cut into pools of `pool` global batches, sorted by length within a pool,
    and the batches are shuffled: little padding is computed, at the price that the rows of
    one batch have similar lengths. A global batch is planned first and then dealt to the ranks,
    so that two ranks with `batch_size=8` see the rows that one with `batch_size=16` sees.

    Args:
        lengths: of every row, in tokens.
        batch_size: rows per rank and step.
        seed: with the epoch, it decides the order.
        grouped: false only shuffles.
        pool: how many batches are sorted together.
    """

    def __init__(
        self,
        lengths: Lengths,
        batch_size: int,
        seed: int = 0,
        grouped: bool = True,
        pool: int = 50,
    ):
        rank, world = rank_and_world()
        rows: Any = range(len(lengths))
        super().__init__(rows, num_replicas=world, rank=rank, seed=seed)
        self.lengths = torch.as_tensor(lengths)
        self.batch_size, self.grouped, self.pool = batch_size, grouped, pool

    @property
    def _global_size(self) -> int:
        return self.batch_size * self.num_replicas

    def __len__(self) -> int:
        return -(-len(self.lengths) // self._global_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        size = self._global_size
        if self.grouped:
            pools = order.split(size * self.pool)
            order = torch.cat([p[self.lengths[p].argsort(stable=True)] for p in pools])
        batches = list(order.split(size))
        if self.grouped:
            shuffled = torch.randperm(len(batches), generator=generator).tolist()
            batches = [batches[i] for i in shuffled]
        for batch in batches:
            if len(batch) < self.num_replicas:
                # Every rank takes a step with something in it.
                batch = batch.repeat(self.num_replicas)[: self.num_replicas]
            yield batch[self.rank :: self.num_replicas].tolist()


class EvenRows(DistributedSampler):
    """Evaluation batches: every row once over all ranks, equally many batches on each.

    Rows that only even out the ranks are yielded as `-row - 1`, for the data set to mark.

    Args:
        lengths: of every row, in tokens; rows of similar length share a batch.
        batch_size: rows per rank and batch.
    """

    def __init__(self, lengths: Lengths, batch_size: int):
        rank, world = rank_and_world()
        rows: Any = range(len(lengths))
        super().__init__(rows, num_replicas=world, rank=rank, shuffle=False)
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size

    def __len__(self) -> int:
        per_rank = -(-len(self.lengths) // self.num_replicas)
        return -(-per_rank // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.lengths.argsort(stable=True).tolist()
        missing = -len(order) % self.num_replicas
        order += [-order[0] - 1] * missing
        own = order[self.rank :: self.num_replicas]
        for start in range(0, len(own), self.batch_size):
            yield own[start : start + self.batch_size]
