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

from .draw import Draw, keyed

Lengths = Sequence[int] | np.ndarray

# Rows are sorted within at most this part of all batches, and a group of similar rows makes so many
# batches or more: with larger parts and fewer batches, the same rows meet in every epoch.
PARTS, LEAST = 4, 2


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) outside of distributed training."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class LengthGroupedBatches(DistributedSampler):
    """Training batches of rows of similar length, drawn anew each epoch.

    Rows are shuffled, cut into pools of `pool` global batches, sorted by length within a pool,
    and the batches are shuffled: little padding is computed. A pool holds at most a quarter of all
    batches, so that few rows make other batches in each epoch, too. A global batch is planned first
    and then dealt to the ranks, so that two ranks with `batch_size=8` see the rows that one with
    `batch_size=16` sees. If the rows do not fill the last batch, its rows are chosen at random, and
    not by length: a row of a short batch counts more, and over the epochs each row is in it equally
    often.

    The price is a bias: the rows of one batch have similar lengths, so a step's gradient is that of
    short rows or of long ones, and criteria that compare the samples of a batch compare those of
    similar length.

    With `tokens_per_batch` the rows whose lengths are within a tenth of each other form a group,
    which is shuffled and cut into equal batches of at most so many padded tokens (rows times the
    longest of the group): many short rows or few long ones make a step. A group that would make a
    single batch is joined with the next shorter rows. The number of batches is
    the same in every epoch, for it depends on the lengths alone, so schedules know the number of
    steps. Without grouping, the longest row of all decides for every batch.

    Args:
        lengths: of every row, in tokens.
        batch_size: rows per rank and step, if there is no `tokens_per_batch`.
        seed: with the epoch, it decides the order.
        grouped: false only shuffles.
        pool: how many batches are sorted together at most.
        tokens_per_batch: at most so many per rank and step, padding included, and at least one row.
        views: epoch e draws view e modulo `views` of its rows; `None` draws view e.

    Raises:
        ValueError: if a single row has more than `tokens_per_batch` tokens.
    """

    def __init__(
        self,
        lengths: Lengths,
        batch_size: int,
        seed: int = 0,
        grouped: bool = True,
        pool: int = 50,
        tokens_per_batch: int | None = None,
        views: int | None = None,
    ):
        rank, world = rank_and_world()
        rows: Any = range(len(lengths))
        super().__init__(rows, num_replicas=world, rank=rank, seed=seed)
        self.lengths = torch.as_tensor(lengths)
        self.batch_size, self.grouped, self.pool = batch_size, grouped, pool
        self.tokens_per_batch, self.views = tokens_per_batch, views
        longest = int(self.lengths.max()) if len(self.lengths) else 0
        if tokens_per_batch is not None and longest > tokens_per_batch:
            raise ValueError(
                f"Row {int(self.lengths.argmax())} of the training data has {longest} tokens, and "
                f"a batch may have {tokens_per_batch}: raise data.tokens_per_batch to {longest} at "
                "least, or lower data.max_length."
            )

    def __len__(self) -> int:
        if self.tokens_per_batch is None:
            return -(-len(self.lengths) // (self.batch_size * self.num_replicas))
        return sum(self._count(group) for group in self._groups())

    def __iter__(self) -> Iterator[Draw]:
        generator = keyed("order", self.seed, self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        plan = self._by_rows if self.tokens_per_batch is None else self._by_tokens
        view = self.epoch if self.views is None else self.epoch % self.views
        for batch in plan(order, generator):
            if len(batch) < self.num_replicas:
                # Every rank takes a step with something in it.
                batch = batch.repeat(self.num_replicas)[: self.num_replicas]
            yield Draw(batch[self.rank :: self.num_replicas].tolist(), view)

    def _by_rows(self, order: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        size = self.batch_size * self.num_replicas
        if self.grouped:
            # Taken before anything is sorted: every row is in the short batch equally often.
            short = len(order) % size
            short_batch, order = order[:short], order[short:]
            pool = min(self.pool, max(len(order) // (PARTS * size), 1))
            pools = order.split(size * pool)
            order = torch.cat([p[self.lengths[p].argsort(stable=True)] for p in pools])
            order = torch.cat([order, short_batch])
        batches = list(order.split(size))
        if self.grouped:
            shuffled = torch.randperm(len(batches), generator=generator).tolist()
            batches = [batches[i] for i in shuffled]
        return batches

    def _by_tokens(self, order: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        # Sorted by length, and rows of one length in the order of the epoch.
        order = order[self.lengths[order].argsort(stable=True)]
        batches: list[torch.Tensor] = []
        start = 0
        for group in self._groups():
            rows = order[start : start + len(group)]
            rows = rows[torch.randperm(len(rows), generator=generator)]
            batches += rows.tensor_split(self._count(group))
            start += len(group)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _groups(self) -> list[torch.Tensor]:
        """The lengths of all rows in order, cut into groups that make `LEAST` batches or more."""
        lengths = self.lengths.sort().values
        if not self.grouped:
            return [lengths]
        cuts, start = [], 0
        while start < len(lengths):
            limit = max(int(lengths[start]) * 1.1, 1)
            start = int(torch.searchsorted(lengths, limit, right=True))
            cuts.append(start)
        groups: list[torch.Tensor] = []
        # From the longest rows down: what is left over are short rows, which need little padding.
        for similar in reversed(lengths.tensor_split(cuts[:-1])):
            if groups and self._count(groups[0]) < LEAST:
                groups[0] = torch.cat([similar, groups[0]])
            else:
                groups.insert(0, similar)
        if len(groups) > 1 and self._count(groups[0]) < LEAST:
            groups[:2] = [torch.cat(groups[:2])]
        return groups

    def _count(self, group: torch.Tensor) -> int:
        """How many global batches the rows of a group make."""
        assert self.tokens_per_batch is not None
        rows = self.tokens_per_batch // max(int(group[-1]), 1) * self.num_replicas
        return -(-len(group) // rows)


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


class PlannedBatches(DistributedSampler):
    """Batches as a plan says, all of it on every rank: who makes the plan shards it.

    Args:
        plan: what is asked of the data set, in order.
    """

    def __init__(self, plan: Sequence[Any]):
        rank, world = rank_and_world()
        rows: Any = range(len(plan))
        super().__init__(rows, num_replicas=world, rank=rank, shuffle=False)
        self.plan = list(plan)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plan)
