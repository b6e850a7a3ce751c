"""The batches of one optimizer step: what counts in them is found before the first is used."""

from typing import Any

import torch

from ..models.inputs import named
from ..objective.normalisation import Shares, shares
from .lookahead import following
from .ranks import sum_over_ranks
from .transfer import changes_batches, transferred


class Window:
    """Makes the gradient of several batches, of all processes, that of one batch of all rows.

    How much counts in each term is added up over the processes with one collective per step, before
    any model runs; see [`lightning_distill.objective.normalisation`][]. In one process and without
    accumulation there is nothing to add up.

    Args:
        anew: batches are made anew by `training_batch`, as of the student's own texts, and count as
            they then are.
    """

    def __init__(self, anew: bool = False) -> None:
        self._anew = anew
        self._first = -1
        self._batches: list[Any] = []
        self._shares: list[Shares | None] = []

    def begin(self) -> None:
        """Forget the batches of a run before, which may have stopped within a step."""
        self._first, self._batches = -1, []

    def take(self, module: Any, batch: Any, batch_idx: int) -> tuple[Any, Shares | None]:
        """The batch to train on, and what its means count in the step; `None` if they are the step.

        Args:
            module: the [`DistillationModule`][] in training.
            batch: as Lightning gives it.
            batch_idx: its number within the epoch.
        """
        together = int(module.trainer.accumulate_grad_batches)
        if together == 1 and module.trainer.world_size == 1:
            return module.training_batch(batch), None
        place = batch_idx - self._first
        if batch_idx % together == 0 or not 0 <= place < len(self._batches):
            self._open(module, batch, batch_idx, together)
            place = 0
        own, self._batches[place] = self._batches[place], None
        return (batch if own is None else own), self._shares[place]

    def _open(self, module: Any, batch: Any, batch_idx: int, together: int) -> None:
        left = together - 1 - batch_idx % together
        left = int(min(left, module.trainer.num_training_batches - batch_idx - 1))
        rest = following(module.trainer, left) if left else []
        self._first = batch_idx
        # Those that hooks change are trained on as they were counted, and not changed once more.
        changed = self._anew or changes_batches(module)
        batches = [batch, *(rest or [])]
        if changed:
            batches = [batch, *(transferred(module, b) for b in rest or [])]
            batches = [module.training_batch(b) for b in batches]
        self._shares = [*self._count(module, batches)]
        self._batches = batches if changed else [None] * len(batches)

    def _count(self, module: Any, batches: list[Any]) -> list[Shares]:
        named_batches = [named(b, module.student) for b in batches]
        counts = [module.objective.count_batch(b).to(module.device) for b in named_batches]
        own = torch.stack(counts)
        everyone = sum_over_ranks(module.trainer, own)
        ranks, averaged = module.trainer.world_size, module.trainer.accumulate_grad_batches
        return shares(own, everyone, ranks, module.objective.gathers(), averaged)
