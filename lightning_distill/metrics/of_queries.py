"""What metrics of torchmetrics share here that order the candidates of queries."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class OfQueries:
    """Put before a class of `torchmetrics.retrieval`: the rows of the data are its queries.

    Args:
        top_k: how many candidates count; `None` for all.
        options: those of that class; a query without a relevant candidate is left out.
    """

    batch_entries = ("row",)
    # Of each query that counts its value, and 1, once it has been computed.
    units: Tensor | None = None

    def __init__(self, top_k: int | None, **options: Any):
        super().__init__(top_k=top_k, **{"empty_target_action": "skip", **options})  # type: ignore[call-arg]
        self._values: list[Tensor] = []
        for name in ("indexes", "preds", "target"):
            # Put together before ranks exchange them: these may have had unequally many batches.
            self.add_state(name, default=[], dist_reduce_fx="cat")  # type: ignore[attr-defined]

    def update(
        self,
        preds: Float[Tensor, " candidates"],
        target: Float[Tensor, " candidates"],
        row: Int[Tensor, " candidates"],
    ) -> None:
        """Take the scores and the relevance of the candidates of one batch."""
        super().update(preds, self.relevance(target), indexes=row)  # type: ignore[misc]

    def compute(self) -> Tensor:
        """The mean over the queries of all batches and ranks."""
        self._values.clear()
        mean: Tensor = super().compute()  # type: ignore[misc]
        values = [value.reshape(()).to(mean) for value in self._values]
        self.units = None
        # Not of one that takes a median, or counts queries without a relevant candidate as 0.
        if values and torch.isclose(torch.stack(values).mean(), mean, 1e-5, 1e-6):
            pairs = [torch.stack([value, torch.ones_like(value)]) for value in values]
            self.units = torch.stack(pairs)
        return mean

    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        self._values.append(super()._metric(preds, target))  # type: ignore[misc]
        return self._values[-1]

    def relevance(self, target: Tensor) -> Tensor:
        """What the class is given of the labels."""
        return target


class OfRelevant(OfQueries):
    """The same of classes that ask whether a candidate is relevant: its label is above 0."""

    def relevance(self, target: Tensor) -> Tensor:
        """1 where a candidate is relevant, else 0."""
        return (target > 0).long()

    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        # These take scores for probabilities, and find nothing that has none above 0.
        scores = preds.double()
        return super()._metric(scores - scores.min() + 1, target)  # type: ignore[misc,no-any-return]
