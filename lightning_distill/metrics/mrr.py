"""At which place the first relevant candidate is."""

from typing import Any

from torchmetrics.retrieval import RetrievalMRR

from .of_queries import OfRelevant


class MRR(OfRelevant, RetrievalMRR):
    """Mean, over the queries, of one divided by the place of the first relevant candidate.

    As `torchmetrics.retrieval.RetrievalMRR`, which it derives from, with the rows of the data
    as queries. Relevant is what has a label above 0; a query without is left out. Voorhees, "The
    TREC-8 question answering track report", 1999.

    Args:
        top_k: how many candidates are looked at, of which none that is relevant gives 0; `None` for
            all.
        options: those of the class that it derives from.
    """

    def __init__(self, top_k: int | None = 10, **options: Any):
        super().__init__(top_k, **options)
