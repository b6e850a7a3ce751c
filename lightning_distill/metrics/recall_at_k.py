"""How many relevant candidates are among the first."""

from typing import Any

from torchmetrics.retrieval import RetrievalRecall

from .of_queries import OfRelevant


class RecallAtK(OfRelevant, RetrievalRecall):
    """Mean share, over the queries, of relevant candidates that are among the first `top_k`.

    As `torchmetrics.retrieval.RetrievalRecall`, which it derives from, with the rows of the
    data as queries. Relevant is what has a label above 0; a query without is left out. Manning,
    Raghavan and Schütze, "Introduction to information retrieval", 2008, section 8.3.

    Args:
        top_k: how many candidates are looked at; `None` for all.
        options: those of the class that it derives from.
    """

    def __init__(self, top_k: int | None = 1, **options: Any):
        super().__init__(top_k, **options)
