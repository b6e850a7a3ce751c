r"""What a mean is divided by: the one place that says how much counts, in a batch and in a step.

A criterion gives the mean over the entries of one batch that it names (`Criterion.counted`). The
value of a term in an optimizer step is the sum over all entries that count in it, of all
accumulated batches and all processes, divided by how many these are. How much counts is found from
the batches before any model runs, and added up over the processes once for all terms of a step.
Then the mean $v_{kr}$ of batch $k$ of $K$ on rank $r$ of $R$ is multiplied by

$$\frac{R \, K \, n_{kr}}{\sum_{jq} n_{jq}}$$

as Lightning takes the mean over the batches of a step, and DDP that over the ranks. The value of a
criterion that gathers is that of all ranks already, and $R \, n_{kr}$ is then $\sum_q n_{kq}$.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.source import Source
from .term import Term

# Of a term, and of the cross-entropy that a fused loss takes in the same pass (`label_weight`).
MEANS = 2


@dataclass(frozen=True)
class Shares:
    """What the means of one batch count.

    Attributes:
        batch: of this rank among all, so that the mean over the ranks is the mean of all entries.
        step: of this batch, of all ranks, among those of the step.
    """

    batch: Float[Tensor, "means terms"]
    step: Float[Tensor, "means terms"]

    @property
    def terms(self) -> Float[Tensor, " terms"]:
        """What each term is multiplied by; 0 if nothing counts."""
        return self.batch[0] * self.step[0]

    @property
    def labels(self) -> Float[Tensor, " terms"]:
        """What the cross-entropy within each term is multiplied by, beside the term's share."""
        terms, labels = (self.batch * self.step).unbind()
        return torch.where(terms > 0, labels / terms, 0.0)


def count(
    terms: Iterable[Term], values: Mapping[Source, Any], rows: int
) -> Float[Tensor, "means terms"]:
    """How much of one batch counts in the means of each term.

    Args:
        terms: in the order of the result.
        values: what the terms read of the batch.
        rows: how many rows the batch has.
    """
    counts = [_of_term(term, values, rows) for term in terms]
    device = next((n.device for pair in counts for n in pair if n.device.type != "cpu"), None)
    return torch.stack([torch.stack([n.to(device) for n in pair]) for pair in counts], dim=1)


def count_rows(terms: Iterable[Term], values: Mapping[Source, Any]) -> list[bool]:
    """Of each term, whether what counts in it are rows, and not tokens of rows.

    Args:
        terms: in the order of the result.
        values: what the terms read of the batch.
    """
    found = []
    for term in terms:
        read = {name: values[s] for name, s in term.inputs.items() if s.role == "batch"}
        counted = term.criterion.counted(**read)
        found.append(counted is None or counted.dim() < 2)
    return found


def rows_of(values: Mapping[Source, Any]) -> int:
    """How many rows the tensors of a batch have, by the first of them."""
    for value in values.values():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Tensor) and first.dim():
            return first.shape[0]
    return 1


def _of_term(term: Term, values: Mapping[Source, Any], rows: int) -> tuple[Tensor, Tensor]:
    read = {name: values[s] for name, s in term.inputs.items() if s.role == "batch"}
    counted = term.criterion.counted(**read)
    own = torch.tensor(float(rows)) if counted is None else counted.sum().float()
    labelled = term.criterion.counted_labels(**read) if term.criterion.label_weight else None
    return own, torch.zeros(()) if labelled is None else labelled.sum().float()


def shares(
    own: Float[Tensor, "batches means terms"],
    everyone: Float[Tensor, "batches means terms"],
    ranks: int,
    gathered: Iterable[bool],
    averaged: int,
) -> list[Shares]:
    """What each batch of a step counts.

    Args:
        own: how much of each batch of this rank counts.
        everyone: the same, summed over the ranks.
        ranks: how many there are.
        gathered: of each term, whether its value is that of all ranks already.
        averaged: over how many batches Lightning takes the mean: also in a step of fewer, at the
            end of an epoch, over as many as in all others.
    """
    of_all = everyone.sum(dim=0)
    of_rank = torch.where(everyone > 0, ranks * own / everyone.clamp(min=_TINY), 0.0)
    whole = torch.tensor(list(gathered), device=own.device)
    of_rank = torch.where(whole, (everyone > 0).to(own), of_rank)
    of_step = torch.where(of_all > 0, averaged * everyone / of_all.clamp(min=_TINY), 0.0)
    return [Shares(batch, step) for batch, step in zip(of_rank, of_step, strict=True)]


# No sum of weights is as small.
_TINY = torch.finfo(torch.float32).tiny


class Means:
    """The mean of every term over a whole split, from the means of its batches."""

    def __init__(self, terms: int):
        # Sums of values, and of how much counts in them.
        self.sums = torch.zeros(2, MEANS, terms)

    def add(
        self, means: Float[Tensor, "means terms"], counts: Float[Tensor, "means terms"]
    ) -> None:
        """Add those of a batch; a mean over nothing, which may be NaN, adds nothing."""
        counts = counts.to(means)
        sums = torch.where(counts > 0, means * counts, 0.0)
        self.sums = self.sums.to(means) + torch.stack([sums, counts])

    def of(
        self, sums: Float[Tensor, "2 means terms"]
    ) -> tuple[Float[Tensor, " terms"], list[bool]]:
        """The mean of each term, of sums over all ranks, and whether anything counts in it."""
        values, counts = sums
        means = torch.where(counts > 0, values / counts.clamp(min=_TINY), 0.0)
        return means.sum(dim=0), (counts > 0).any(dim=0).tolist()
