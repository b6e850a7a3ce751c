"""The label loss of rankers: scores of each query's candidates, and how relevant these are."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, in_full_precision, masked_mean
from .criterion import Criterion
from .hard_label import KINDS
from .of_candidates import of_candidates, row_begins


class Relevance(Criterion):
    r"""Mean over what has a label of how far scores are from relevance.

    `cross_entropy` compares the candidates of a query with each other,

    $$-\sum_j \frac{y_j}{\sum_k y_k} \log \sigma(s)_j$$

    which is $-\log \sigma(s)_j$ where only candidate $j$ is relevant. It counts queries of which
    all candidates have a label, at least two of them, and one is relevant. `binary_cross_entropy`
    of the sigmoid, and `mse`, compare each pair by itself, and count pairs that have a label.

    Args:
        kind: `cross_entropy`, `binary_cross_entropy` (labels from 0 to 1) or `mse`.

    References:
        Gao, Dai and Callan, *Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline*,
        2021, https://arxiv.org/abs/2101.08751, eq. 3. Nogueira and Cho, *Passage Re-ranking with
        BERT*, 2019, https://arxiv.org/abs/1901.04085, eq. 1.
    """

    masked_by_labels = True

    def __init__(self, kind: str = "cross_entropy"):
        super().__init__()
        check_choice("kind", kind, KINDS)
        self.kind = kind

    def counted(self, **inputs: Tensor) -> Bool[Tensor, " pairs"]:
        """Pairs that have a label; for the cross-entropy the first pair of queries that count."""
        labels, place = inputs["labels"], inputs["place"]
        if self.kind != "cross_entropy":
            return ~labels.isnan()
        begins = row_begins(place)
        known = self._queries(*of_candidates(labels, place))
        return begins & known[begins.cumsum(0) - 1]

    def _queries(self, labels: Tensor, there: Tensor) -> Bool[Tensor, " queries"]:
        known = (~labels.isnan() | ~there).all(dim=1)
        return known & (labels.nan_to_num() > 0).any(dim=1) & (there.sum(dim=1) > 1)

    def forward(
        self,
        student: Float[Tensor, "pairs ..."],
        labels: Float[Tensor, " pairs"],
        place: Int[Tensor, " pairs"],
    ) -> Float[Tensor, ""]:
        """The mean over what counts.

        Args:
            student: scores `(pairs,)` or `(pairs, 1)`.
            labels: how relevant each candidate is, not negative for the cross-entropy; NaN without.
            place: of each candidate among those of its query, from 1.

        Raises:
            ValueError: for labels that are negative, or for `binary_cross_entropy` above 1.
        """
        (student,) = in_full_precision(student)
        student, labels = student.flatten(), labels.to(student.dtype)
        _check_labels(labels, self.kind)
        if self.kind != "cross_entropy":
            known = ~labels.isnan()
            wanted = labels.nan_to_num()
            compare = F.mse_loss if self.kind == "mse" else F.binary_cross_entropy_with_logits
            return masked_mean(compare(student, wanted, reduction="none"), known)
        relevant, there = of_candidates(labels, place)
        scores, _ = of_candidates(student, place)
        kept = self._queries(relevant, there)
        if not kept.any():
            return 0.0 * student.sum()
        scores, relevant, there = scores[kept], relevant[kept], there[kept]
        # The largest negative number and no infinity: 0 * -inf would be NaN.
        lowest = torch.finfo(scores.dtype).min
        found = scores.masked_fill(~there, lowest).log_softmax(dim=1).masked_fill(~there, 0.0)
        return -(relevant / relevant.sum(dim=1, keepdim=True) * found).sum(dim=1).mean()

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"


def _check_labels(labels: Tensor, kind: str) -> None:
    most = 1.0 if kind == "binary_cross_entropy" else torch.inf
    if kind == "mse" or labels.device.type != "cpu" or not ((labels < 0) | (labels > most)).any():
        return
    known = labels[~labels.isnan()]
    raise ValueError(
        f"Labels of a ranking with {kind} must {'lie between 0 and 1' if most == 1 else 'not be '}"
        f"{'' if most == 1 else 'negative'}, got {float(known.min()):.4g} to "
        f"{float(known.max()):.4g}. data.largest_score divides them; to learn the numbers as they "
        "are: criteria.hard_label.criterion.kind=mse."
    )
