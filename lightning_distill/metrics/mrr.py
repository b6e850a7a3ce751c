"""At which place the first relevant candidate is."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR


class MRR(RetrievalMRR):
    """Mean, over the queries, of one divided by the place of the first relevant candidate.

    As [`torchmetrics.retrieval.RetrievalMRR`][], which it derives from, with the rows of the data
    as queries. Relevant is what has a label above 0; a query without is left out. Voorhees, "The
    TREC-8 question answering track report", 1999.

    Args:
        top_k: how many candidates are looked at, of which none that is relevant gives 0; `None` for
            all.
        options: those of the class that it derives from.
    """

    batch_entries = ("row",)

    def __init__(self, top_k: int | None = 10, **options: Any):
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
