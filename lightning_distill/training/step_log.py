"""What is logged of a training step, and heard by criteria: means over all processes."""

import logging
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..objective.normalisation import Shares
from .ranks import sum_over_ranks

log = logging.getLogger("lightning_distill")


class StepLog:
    """Logs the total and every term of a batch as `train/NAME`.

    Args:
        module: the [`DistillationModule`][] in training.
    """

    def __init__(self, module: Any):
        self.module = module
        # The largest value of every term so far, to notice one that never says anything.
        self._largest: Tensor | None = None

    def add(self, means: Float[Tensor, "means terms"], shares: Shares | None, rows: int) -> None:
        """Log the means of one batch, and tell the criteria of them.

        Args:
            means: of this rank's batch.
            shares: what they count among those of all ranks; all the same by default.
            rows: how many the batch has.
        """
        objective, module = self.module.objective, self.module
        more = objective.logged()
        values = [torch.as_tensor(value).detach().to(means) for _, _, value in more]
        if shares is not None:
            means = _shared(means, shares.batch)
            values = [
                _shared(value, shares.batch[0, i])
                for (_, i, _), value in zip(more, values, strict=True)
            ]
        # One collective for all that is logged.
        both = torch.cat([means.flatten(), *(value.reshape(1) for value in values)])
        both = sum_over_ranks(module.trainer, both) / module.trainer.world_size
        means, said = both[: means.numel()].view_as(means), both[means.numel() :]
        objective.observe(means[0])
        terms = means.sum(dim=0)
        if module.current_epoch == 0:
            before = terms.abs() if self._largest is None else self._largest.to(terms)
            self._largest = terms.abs().maximum(before)
        weights = objective.weights()
        named = dict(zip(weights, terms, strict=True))
        total = torch.stack([weights[name] * value for name, value in named.items()]).sum()
        # For a bar Lightning asks for the number in every step, and waits for the device.
        shown = module.trainer.progress_bar_callback is not None
        module.log("train/loss", total, prog_bar=shown, batch_size=rows)
        named |= objective.summed(named)
        named |= {name: value for (name, _, _), value in zip(more, said, strict=True)}
        if objective.balance is not None:
            balanced = objective.balance.logged()
            named |= {f"balance_{name}": value for name, value in balanced.items()}
        module.log_dict({f"train/{n}": value for n, value in named.items()}, batch_size=rows)

    def check_silent(self) -> None:
        """Say which terms were 0 throughout the first epoch; refuse to go on if all were."""
        if self.module.current_epoch > 0 or self._largest is None:
            return
        weights = self.module.objective.weights()
        found = zip(weights, self._largest.tolist(), strict=True)
        silent = [name for name, largest in found if largest == 0 and weights[name] > 0]
        if not silent:
            return
        what = (
            f"{', '.join(silent)} was 0 in every step of the first epoch, so nothing was learnt "
            "from it. Has any training row a label, if it reads labels? Is the student a copy of "
            "the teacher, if it reads both?"
        )
        if len(silent) == len(weights):
            raise ValueError(what)
        log.warning(what)


def _shared(mean: Tensor, share: Tensor) -> Tensor:
    # Selected and not multiplied: a mean over nothing may be NaN.
    return torch.where(share > 0, mean * share, 0.0)
