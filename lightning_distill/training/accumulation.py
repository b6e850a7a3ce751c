"""Batches whose gradients are added up before a step, weighed by what counts in each."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..models.inputs import named

log = logging.getLogger("lightning_distill")


class Lookahead:
    """An iterator of which the next items can be seen before they are taken."""

    def __init__(self, items: Iterator[Any]):
        self._items = items
        self._seen: list[Any] = []

    def __iter__(self) -> "Lookahead":
        return self

    def __next__(self) -> Any:
        return self._seen.pop(0) if self._seen else next(self._items)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._items, name)

    def see(self, count: int) -> list[Any]:
        """The next items, fewer at the end; each is given by `next` afterwards."""
        while len(self._seen) < count:
            try:
                self._seen.append(next(self._items))
            except StopIteration:
                break
        return self._seen[:count]


class Accumulation:
    r"""Makes the gradient of several batches that of one batch of all their rows.

    Lightning takes the mean over `accumulate_grad_batches` batches, in which a token of a batch of
    few counts more than one of a batch of many. Here the value of term $t$ on batch $k$ is
    multiplied by $K n_{kt} / \sum_j n_{jt}$, where $n$ is how much of the batches of all processes
    counts in that term. A cross-entropy within a term (`label_weight`) is weighed by its own count.
    For that the batches of a step are looked at before the first is used.

    Args:
        anew: batches are made anew by `training_batch`, as of the student's own texts, and count as
            they then are.
    """

    def __init__(self, anew: bool = False) -> None:
        self._anew = anew
        self._first = -1
        self._batches: list[Any] = []
        self._factors = Tensor()

    def begin(self) -> None:
        """Forget the batches of a run before, which may have stopped within a step."""
        self._first, self._batches = -1, []

    def take(self, module: Any, batch: Any, batch_idx: int) -> tuple[Any, Tensor | None]:
        """The batch to train on, and a factor for each term; `None` where all are 1.

        Factors have shape (2, terms): of the terms, and of the cross-entropy within each.

        Args:
            module: the [`DistillationModule`][] in training.
            batch: as Lightning gives it.
            batch_idx: its number within the epoch.
        """
        together = int(module.trainer.accumulate_grad_batches)
        if together == 1:
            return module.training_batch(batch), None
        place = batch_idx - self._first
        if batch_idx % together == 0 or not 0 <= place < len(self._batches):
            self._open(module, batch, batch_idx, together)
            place = 0
        own, self._batches[place] = self._batches[place], None
        return (batch if own is None else own), self._factors[place]

    def _open(self, module: Any, batch: Any, batch_idx: int, together: int) -> None:
        left = together - 1 - batch_idx % together
        left = int(min(left, module.trainer.num_training_batches - batch_idx - 1))
        following = _following(module.trainer, left)
        self._first = batch_idx
        if following is None:
            self._batches = [module.training_batch(batch)]
            self._factors = torch.ones(1, 2, len(module.objective.terms))
            return
        batches = [batch, *following]
        if self._anew:
            on_device = [batch, *(_moved(module, b) for b in following)]
            batches = [module.training_batch(b) for b in on_device]
        counts = [
            count.to(module.device)
            for b in batches
            for of_labels in (False, True)
            for count in module.objective.batch_counts(named(b, module.student), of_labels).values()
        ]
        counted = torch.stack(counts).view(len(batches), 2, -1)
        counted = module.trainer.strategy.reduce(counted, reduce_op="sum")
        total = counted.sum(dim=0)
        # A term that counts nothing is 0, whatever it is multiplied by.
        self._factors = torch.where(total > 0, together * counted / total, 1.0)
        self._batches = batches if self._anew else [None] * len(batches)


def _moved(module: Any, batch: Any) -> Any:
    batch = module.trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return module.trainer.strategy.batch_to_device(batch, dataloader_idx=0)


_said: set[str] = set()


def _following(trainer: Any, count: int) -> list[Any] | None:
    """The next batches of this epoch, which Lightning will give in turn; `None` if unknown."""
    try:
        fetcher = trainer.fit_loop._data_fetcher
        iterator, waiting = fetcher.iterator, list(getattr(fetcher, "batches", []))
        if not isinstance(iterator, Lookahead):
            iterator = fetcher.iterator = Lookahead(iterator)
    except AttributeError:
        if "unknown" not in _said:
            _said.add("unknown")
            log.warning(
                "This version of Lightning does not let the batches of a step be seen before it: "
                "with accumulate_grad_batches each batch counts alike, however many tokens it has."
            )
        return None
    found = waiting[:count]
    found += iterator.see(count - len(found))
    # Each comes with its number and that of its loader.
    return [batch for batch, *_ in found]
