"""Where each row of a cache is, by its id."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from .shard import Shard, write_shard

FILE = "index.safetensors"


def write_index(folder: Path, shards: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Write where each row of some shards is; returns how many rows there are, and the facts.

    A row that was written twice is read where it was written first.

    Args:
        folder: that holds the shards.
        shards: the facts of each, in order.
    """
    high, low, place = [], [], []
    for number, facts in enumerate(shards):
        ids = Shard(folder / facts["file"], facts)["id"]
        high.append(ids[:, 0].copy())
        low.append(ids[:, 1].copy())
        place.append(np.arange(len(ids), dtype=np.int64) + (number << 32))
    columns = [np.concatenate(parts or [np.empty(0, np.int64)]) for parts in (high, low, place)]
    order = np.lexsort((columns[1], columns[0]))
    columns = [column[order] for column in columns]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (columns[0][1:] != columns[0][:-1]) | (columns[1][1:] != columns[1][:-1])
    columns = [column[first] for column in columns]
    named = {n: torch.from_numpy(c) for n, c in zip(("high", "low", "place"), columns, strict=True)}
    return len(columns[0]), write_shard(folder / FILE, named)


def find_rows(index: Shard, ids: Int64[np.ndarray, "rows 2"]) -> Int64[np.ndarray, " rows"]:
    """Where each row is: the number of its shard in the high 32 bits; -1 where it is in none."""
    high, low, place = (index[name] for name in ("high", "low", "place"))
    at = _search(high, ids[:, 0])
    found = np.full(len(ids), -1, dtype=np.int64)
    open_ = np.arange(len(ids))
    # Rows that share 64 bits, next to each other, are told apart by the other 64.
    while len(open_):
        inside = at[open_] < len(high)
        open_ = open_[inside]
        open_ = open_[high[at[open_]] == ids[open_, 0]]
        same = low[at[open_]] == ids[open_, 1]
        found[open_[same]] = place[at[open_[same]]]
        open_ = open_[~same]
        at[open_] += 1
    return found


def _search(
    high: Int64[np.ndarray, " all"], wanted: Int64[np.ndarray, " rows"]
) -> Int64[np.ndarray, " rows"]:
    """As `np.searchsorted`, and of a column on disk a few pages near each other are read.

    Ids are digests, so that they lie evenly: where one is can be told to within some square roots
    of how many there are. Where that is wrong, as for ids of another kind, all are searched.
    """
    count = len(high)
    near = 2 * math.isqrt(count) + 1
    guesses = ((wanted.astype(np.float64) + 2.0**63) * (count / 2.0**64)).astype(np.int64)
    found = np.empty(len(wanted), dtype=np.int64)
    for i, guess in enumerate(guesses.tolist()):
        start, stop = max(guess - near, 0), min(guess + near, count)
        place = start + int(high[start:stop].searchsorted(wanted[i]))
        if (place == start > 0) or (place == stop < count):
            place = int(high.searchsorted(wanted[i]))
        found[i] = place
    return found
