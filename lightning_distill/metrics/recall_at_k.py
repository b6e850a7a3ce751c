"""How many relevant candidates are among the first."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.retrieval import RetrievalRecall


class RecallAtK(RetrievalRecall):
    """Mean share, over the queries, of relevant candidates that are among the first `top_k`.

    As [`torchmetrics.retrieval.RetrievalRecall`][], which it derives from, with the rows of the
    data as queries. Relevant is what has a label above 0; a query without is left out. Manning,
    Raghavan and Schütze, "Introduction to information retrieval", 2008, section 8.3.

    Args:
        top_k: how many candidates are looked at; `None` for all.
        options: those of the class that it derives from.
    """

    batch_entries = ("row",)

    def __init__(self, top_k: int | None = 1, **options: Any):
        super().__init__(top_k=top_k, **{"empty_target_action": "skip", **options})
        for name in ("indexes", "preds", "target"):
            # Put together before ranks exchange them: these may have had unequally many batches.
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(  # type: ignore[override]
        self,
        preds: Float[Tensor, " candidates"],
        target: Float[Tensor, " candidates"],
        row: Int[Tensor, " candidates"],
    ) -> None:
        """Take the scores and the relevance of the candidates of one batch."""
        super().update(preds, (target > 0).long(), indexes=row)

    def _metric(self, preds: Tensor, target: Tensor) -> Tensor:
        # The class takes scores for probabilities, and finds nothing that has none above 0.
        scores = preds.double()
        return super()._metric(scores - scores.min() + 1, target)
