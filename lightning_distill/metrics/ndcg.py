"""How well candidates are ordered, by their relevance."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.retrieval import RetrievalNormalizedDCG


class NDCG(RetrievalNormalizedDCG):
    """Mean nDCG over the queries: 1 where the more relevant candidates always score higher.

    As [`torchmetrics.retrieval.RetrievalNormalizedDCG`][], which it derives from, with the rows of
    the data as queries. A query without a relevant candidate is left out. Järvelin and Kekäläinen,
    "Cumulated gain-based evaluation of IR techniques", 2002, https://doi.org/10.1145/582415.582418.

    Args:
        top_k: of the ordered candidates the first so many count; `None` for all.
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
        super().update(preds, target, indexes=row)
