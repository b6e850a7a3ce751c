"""A loader of whole batches, whose rows a sampler names."""

import copy
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .draw import Draw

# For each batch the split, row numbers, and the view under which training rows are augmented.
Plan = Sequence[tuple[str, Sequence[int], int | None]]


def worker_count(num_workers: int | None) -> int:
    """As it is given; by default two beside a GPU, and none on a CPU, whose cores are in use."""
    if num_workers is None:
        return 2 if torch.cuda.is_available() else 0
    return num_workers


class Batches(Dataset):
    """A data set of whole batches, which are asked for by their rows, or by their number.

    A sampler of ours names the rows of each batch. Where Lightning takes another sampler, as it
    does for `overfit_batches`, the batches are numbered, in the order of the sampler's epoch 0.

    Args:
        rows: a data set that is indexed by what the sampler gives.
        sampler: gives the rows of each batch of an epoch.
    """

    def __init__(self, rows: Any, sampler: Any):
        self.rows, self.sampler = rows, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, asked: Any) -> Any:
        return self.rows[self._numbered[asked] if isinstance(asked, Integral) else asked]

    @cached_property
    def _numbered(self) -> list[Any]:
        # The sampler itself may be in the middle of an epoch.
        sampler = copy.copy(self.sampler)
        sampler.set_epoch(0)
        return list(sampler)


def row_loader(
    rows: Any, sampler: Any, collate: Callable[[Any], Any] | None, num_workers: int | None
) -> DataLoader:
    """A batch for each list of row numbers that the sampler gives.

    Args:
        rows: a data set that is indexed by what the sampler gives.
        sampler: such as [`LengthGroupedBatches`][].
        collate: makes a batch of what `rows` gives; `None` takes it as it is.
        num_workers: processes that collate; see [`worker_count`][].
    """
    count = worker_count(num_workers)
    return DataLoader(
        Batches(rows, sampler),
        sampler=sampler,
        batch_size=None,
        collate_fn=collate,
        num_workers=count,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=count > 0,
    )


class Splits(Dataset):
    """Rows of several splits; indexed by `(split, row numbers, view)`."""

    def __init__(self, splits: Mapping[str, Any]):
        self.splits = splits

    def __getitem__(self, asked: tuple[str, Sequence[int], int | None]) -> Any:
        split, rows, view = asked
        return self.splits[split][Draw(rows, view)]


def check_plan(plan: Plan, splits: Mapping[str, Sized]) -> None:
    """Refuse a plan that names a split or a row that there is not.

    Raises:
        ValueError: naming what there is.
    """
    for split, rows, _ in plan:
        if split not in splits:
            raise ValueError(f"`plan` names a split {split!r}; there are {', '.join(splits)}.")
        count = len(splits[split])
        if not len(rows) or min(rows) < 0 or max(rows) >= count:
            raise ValueError(
                f"`plan` must name rows of {split} from 0 to {count - 1}, got "
                f"{', '.join(map(str, rows[:10])) or 'none'}."
            )
