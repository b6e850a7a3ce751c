"""Of candidates: scores of each query's candidates, made of vectors, for criteria of rankers."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, check_positive, in_full_precision
from ._wrapper import Wrapper
from .criterion import both, Criterion
from .pair_score import firsts

SIMILARITIES = ("cosine", "dot")


def of_candidates(
    values: Float[Tensor, "texts ..."],
    place: Int[Tensor, " texts"],
    similarity: str = "cosine",
    scale: float = 1.0,
) -> tuple[Float[Tensor, "queries candidates"], Bool[Tensor, "queries candidates"]]:
    r"""Scores of the candidates of each query, and which of them are there.

    $$s_j = c \cdot \cos(q, d_j) \quad\text{or}\quad s_j = c \cdot q^\top d_j$$

    Args:
        values: vectors `(texts, width)` of the texts of all rows, one row after the other; or
            scores `(texts,)`, which are put into rows as they are.
        place: of each text in its row: 0 for the query, which candidates follow.
        similarity: `cosine` or `dot`.
        scale: what it is multiplied by; cosines lie close together, and a softmax of them is flat.

    Returns:
        The scores, 0 where a query has fewer candidates than another, and which are candidates.
    """
    check_choice("similarity", similarity, SIMILARITIES)
    (values,) = in_full_precision(values)
    if values.dim() > 1:
        query = values[firsts(place)]
        alike = F.cosine_similarity if similarity == "cosine" else _dot
        values = scale * alike(values, query, dim=-1)
    of = (place == 0).cumsum(0)[place > 0] - 1
    at = of, place[place > 0] - 1
    shape = int((place == 0).sum()), int(place.max()) if len(place) else 0
    there = torch.zeros(shape, dtype=torch.bool, device=place.device)
    there = there.index_put(at, torch.ones_like(at[0], dtype=torch.bool))
    return values.new_zeros(shape).index_put(at, values[place > 0]), there


def _dot(first: Tensor, second: Tensor, dim: int) -> Tensor:
    return (first * second).sum(dim)


class OfCandidates(Wrapper):
    """A criterion of rankers, given the scores of each query's candidates.

    Args:
        criterion: takes `(queries, candidates)` of student and teacher, and the mean of what it
            says of a query: [`MarginMSE`][], [`ListwiseKL`][], or your own. Where queries differ in
            how many candidates they have, it takes an argument `candidates`, true for those that
            are there.
        similarity: `cosine` or `dot`.
        scale: what scores of vectors are multiplied by.
    """

    def __init__(self, criterion: Criterion, similarity: str = "cosine", scale: float = 1.0):
        super().__init__(criterion)
        check_choice("similarity", similarity, SIMILARITIES)
        check_positive("scale", scale)
        self.similarity, self.scale = similarity, scale

    def around(self, criterion: Criterion) -> "OfCandidates":
        """The same around another criterion."""
        return OfCandidates(criterion, self.similarity, self.scale)

    @property
    def takes_mask(self) -> bool:
        """It takes none: which queries count follows from the teacher's scores."""
        return False

    def counted(self, **inputs: Tensor) -> Tensor | None:
        """Queries that have candidates, of which the teacher's scores, if they are read, are known.

        Their first texts count once each.
        """
        place, scores = inputs["place"], inputs.get("teacher")
        begins = place == 0
        last = begins.new_ones(1)
        there = begins & ~torch.cat([begins[1:], last])
        if scores is None or scores.dim() > 1:
            return there
        unknown = (scores.isnan() & ~begins).to(torch.int)
        lost = torch.zeros_like(unknown).index_add(0, firsts(place), unknown)
        return both(there, lost == 0)

    def forward(
        self,
        student: Float[Tensor, "texts ..."],
        teacher: Float[Tensor, "texts ..."],
        place: Int[Tensor, " texts"],
    ) -> Float[Tensor, ""]:
        """The criterion of the queries that count.

        Args:
            student: vectors `(texts, width)`.
            teacher: vectors, of any width, or scores `(texts,)`, NaN for queries.
            place: of each text in its row: 0 for the query.

        Raises:
            ValueError: for queries of unequal lengths and a criterion that takes none such.
        """
        scores, there = of_candidates(student, place, self.similarity, self.scale)
        taught, _ = of_candidates(teacher, place, self.similarity, self.scale)
        counted = self.counted(place=place, teacher=teacher)
        assert counted is not None
        kept = counted[place == 0]
        if not kept.any():
            return 0.0 * student.sum()
        scores, taught, there = scores[kept], taught[kept], there[kept]
        if bool(there.all()):
            return self.criterion(scores, taught)
        if "candidates" not in self.criterion.signature.parameters:
            fewest, most = (int(f(there.sum(1))) for f in (torch.min, torch.max))
            raise ValueError(
                f"{self.criterion.class_name} compares equally many candidates of each query, and "
                f"these have {fewest} to {most}. Give each query as many, or take a criterion with "
                "an argument `candidates`, such as ListwiseKL."
            )
        return self.criterion(scores, taught, candidates=there)

    def extra_repr(self) -> str:  # noqa: D102
        return f"similarity={self.similarity!r}, scale={self.scale}"
