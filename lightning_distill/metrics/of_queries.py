"""What metrics of torchmetrics share here that order the candidates of queries."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


class OfQueries:
    """Put before a class of `torchmetrics.retrieval`: the rows of the data are its queries.

    Args:
        top_k: how many candidates count; `None` for all.
        options: those of that class; a query without a relevant candidate is left out.
    """

    batch_entries = ("row",)

    def __init__(self, top_k: int | None, **options: Any):
        super().__init__(top_k=top_k, **{"empty_target_action": "skip", **options})  # type: ignore[call-arg]
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
