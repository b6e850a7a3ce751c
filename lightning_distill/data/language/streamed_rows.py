"""Rows of documents that are read, tokenised and packed while a model learns of them."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, get_worker_info, IterableDataset

from ..length_grouped import rank_and_world
from ..row_loader import worker_count
from .packed_rows import FILL, PackedRows

# So much is tokenised at once: in characters, and in documents.
CHUNK, MOST = 1_000_000, 1000
# So many rows are laid out at once.
SLAB = 64


class StreamedRows(IterableDataset):
    """Batches of rows of a corpus that is never held.

    Every process of every rank reads all documents, and tokenises one in so many: no document is
    seen twice, whatever the number of files. It holds a chunk of documents, and some rows to draw
    from them in a random order; neither grows with the corpus.

    `row` is a number that no two rows of an epoch share.

    Args:
        documents: gives those of an epoch, the same in every process.
        packed: makes rows of some documents, and gives back the tokens that do not fill a row, for
            the next call; the last call says that there is none.
        batch_size: rows of a batch.
        shuffle_rows: how many rows are held by a rank.
        seed: with the epoch, it decides the order.
    """

    def __init__(
        self,
        documents: Callable[[int], Iterable[dict[str, Any]]],
        packed: Callable[..., tuple[PackedRows | None, Any]],
        batch_size: int,
        shuffle_rows: int,
        seed: int,
    ):
        self.documents, self.packed, self.batch_size = documents, packed, batch_size
        self.shuffle_rows, self.seed, self.epoch = shuffle_rows, seed, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rank, world = rank_and_world()
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        shard, shards = rank * count + number, world * count
        held = max(1, self.shuffle_rows // count)
        rng = np.random.default_rng([self.seed, self.epoch, shard])
        batch: list[dict[str, Any]] = []
        pad = (0, 0)
        for row, pad in shuffled(self._rows(shard, shards), held, rng):
            batch.append(row)
            if len(batch) == self.batch_size:
                yield joined(batch, pad)
                batch = []
        if batch:
            yield joined(batch, pad)

    def _rows(self, shard: int, shards: int) -> Iterator[tuple[dict[str, Any], tuple[int, int]]]:
        left, made = None, 0
        for chunk, last in _chunks(_every(self.documents(self.epoch), shard, shards)):
            rows, left = self.packed(chunk, left, last)
            if rows is None:
                continue
            for start in range(0, len(rows), SLAB):
                slab = rows[range(start, min(start + SLAB, len(rows)))]
                for row in _alone(slab):
                    row["row"] = torch.tensor([made * shards + shard])
                    made += 1
                    yield row, rows.pad


def _alone(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each row of a batch, without the padding that the others need."""
    inner = {name: _alone(value) for name, value in batch.items() if isinstance(value, Mapping)}
    tensors = {name: value for name, value in batch.items() if name not in inner}
    mask = tensors.get("attention_mask")
    lengths = None if mask is None else mask.sum(dim=1).tolist()
    for i in range(len(batch["input_ids"])):
        end = None if lengths is None else lengths[i]
        # Copies, for a part of a tensor keeps all of it.
        row: dict[str, Any] = {
            name: (value[i : i + 1] if value.dim() == 1 else value[i : i + 1, :end]).clone()
            for name, value in tensors.items()
        }
        yield {**row, **{name: next(rows) for name, rows in inner.items()}}


def _every(documents: Iterable[Any], shard: int, shards: int) -> Iterator[Any]:
    return (d for i, d in enumerate(documents) if i % shards == shard)


def _chunks(documents: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, list[Any]], bool]]:
    """Columns of some documents, and whether they are the last ones."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        if size >= CHUNK or len(chunk) >= MOST:
            yield _columns(chunk), False
            chunk, size = [], 0
        chunk.append(document)
        size += sum(len(str(value)) for value in document.values())
    if chunk:
        yield _columns(chunk), True


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def shuffled(rows: Iterable[Any], held: int, rng: np.random.Generator) -> Iterator[Any]:
    """All rows, each drawn from `held` of them.

    Args:
        rows: in their own order.
        held: how many are in memory.
        rng: what draws.
    """
    pool: list[Any] = []
    for row in rows:
        if len(pool) < held:
            pool.append(row)
            continue
        place = int(rng.integers(held))
        yield pool[place]
        pool[place] = row
    for place in rng.permutation(len(pool)):
        yield pool[place]


def joined(rows: list[dict[str, Any]], pad: tuple[int, int]) -> dict[str, Any]:
    """One batch of batches of one row each, padded to the longest.

    Args:
        rows: as [`PackedRows`][] gives them.
        pad: the ids of the student's and of the teacher's pad token.
    """
    fill = {"input_ids": pad[0], **FILL}
    batch: dict[str, Any] = {}
    for name, value in rows[0].items():
        if isinstance(value, Mapping):
            batch[name] = joined([row[name] for row in rows], (pad[1], pad[1]))
        elif value.dim() == 1:
            batch[name] = torch.cat([row[name] for row in rows])
        else:
            parts = [row[name][0] for row in rows]
            batch[name] = pad_sequence(parts, batch_first=True, padding_value=fill.get(name, 0))
    return batch


class StreamLoader:
    """Equally many batches of a stream on every rank.

    Ranks have about as many rows each, but not the same number, and DDP waits for the step that
    every rank takes. Before each batch they agree, over a group of processes on the CPU, whether
    all have one; the epoch ends with the first that has none. What the others had left, a few rows
    of their last documents, is not seen in this epoch.

    It has no length. Lightning tells its `sampler` the epoch.

    Args:
        stream: [`StreamedRows`][], which gives the batches.
        num_workers: processes that make them; see `worker_count`.
    """

    def __init__(self, stream: Any, num_workers: int | None = None):
        self.stream, self.num_workers = stream, worker_count(num_workers)
        self.batch_size = stream.batch_size
        self._group: Any = None

    @property
    def sampler(self) -> "StreamLoader":
        """Itself, for who tells samplers the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Read the documents in the order of this epoch from now on."""
        self.stream.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = DataLoader(
            copy.copy(self.stream),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        if rank_and_world()[1] == 1:
            yield from loader
            return
        if self._group is None:
            # That of the gradients may be on the GPU, and asking it would wait for all of a step.
            self._group = torch.distributed.new_group(backend="gloo")
        batches = iter(loader)
        while True:
            batch = next(batches, None)
            there = torch.tensor(int(batch is not None))
            torch.distributed.all_reduce(there, torch.distributed.ReduceOp.MIN, group=self._group)
            if not there or batch is None:
                return
            yield batch
