"""How well candidates are ordered, by their relevance."""

from typing import Any

from torchmetrics.retrieval import RetrievalNormalizedDCG

from .of_queries import OfQueries


class NDCG(OfQueries, RetrievalNormalizedDCG):
    """Mean nDCG over the queries: 1 where the more relevant candidates always score higher.

    As `torchmetrics.retrieval.RetrievalNormalizedDCG`, which it derives from, with the rows of
    the data as queries. A query without a relevant candidate is left out. Järvelin and Kekäläinen,
    "Cumulated gain-based evaluation of IR techniques", 2002, https://doi.org/10.1145/582415.582418.

    Args:
        top_k: of the ordered candidates the first so many count; `None` for all.
        options: those of the class that it derives from.
    """

    def __init__(self, top_k: int | None = 10, **options: Any):
        super().__init__(top_k, **options)
