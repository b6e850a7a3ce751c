"""Of candidates: scores of each query's candidates in rows, for criteria of rankers."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, check_positive, in_full_precision
from ._wrapper import Wrapper
from .criterion import Criterion
from .pair_score import firsts

SIMILARITIES = ("cosine", "dot")


def of_candidates(
    values: Float[Tensor, "values ..."],
    place: Int[Tensor, " texts"],
    similarity: str = "cosine",
    scale: float = 1.0,
) -> tuple[Float[Tensor, "queries candidates"], Bool[Tensor, "queries candidates"]]:
    r"""Scores of the candidates of each query, and which of them are there.

    $$s_j = c \cdot \cos(q, d_j) \quad\text{or}\quad s_j = c \cdot q^\top d_j$$

    Args:
        values: vectors `(texts, width)` of the texts of all rows, one row after the other; or
            scores `(texts,)` or `(texts, 1)`, which are put into rows as they are.
        place: of each text in its row: 0 for the query, and 1 and more for the candidates, which
            follow it. Scores of pairs of query and candidate have no query: then each row begins
            with 1.
        similarity: `cosine` or `dot`.
        scale: what it is multiplied by; cosines lie close together, and a softmax of them is flat.

    Returns:
        The scores, 0 where a query has fewer candidates than another, and which are candidates.

    Raises:
        ValueError: for texts that begin within a row, and for more or fewer places than values.
    """
    check_choice("similarity", similarity, SIMILARITIES)
    if len(values) != len(place):
        raise ValueError(
            f"Each text needs one place, got {len(place)} for values of shape "
            f"{tuple(values.shape)}. Do student and teacher both read pairs of query and "
            "candidate, or both read texts one by one?"
        )
    (values,) = in_full_precision(values)
    if _are_vectors(values):
        query = values[firsts(place)]
        alike = F.cosine_similarity if similarity == "cosine" else _dot
        values = scale * alike(values, query, dim=-1)
    begins = row_begins(place)
    values, of = values.flatten(), (begins.cumsum(0) - 1)[place > 0]
    at = of, place[place > 0] - 1
    shape = int(begins.sum()), int(place.max()) if len(place) else 0
    there = torch.zeros(shape, dtype=torch.bool, device=place.device)
    there = there.index_put(at, torch.ones_like(at[0], dtype=torch.bool))
    return values.new_zeros(shape).index_put(at, values[place > 0]), there


def row_begins(place: Int[Tensor, " texts"]) -> Bool[Tensor, " texts"]:
    """Where a row begins: where the place is no larger than the one before.

    Args:
        place: of each text in its row; the first of a row is 0 or 1.

    Raises:
        ValueError: if the texts begin within a row.
    """
    if len(place) and int(place[0]) > 1:
        raise ValueError(
            f"The first text of a batch must have place 0, or 1 in pairs, got {int(place[0])}: "
            "texts of a row stand one after the other, as those of data=embedding_files."
        )
    first = torch.ones_like(place[:1], dtype=torch.bool)
    return torch.cat([first, place[1:] <= place[:-1]])


def _are_vectors(values: Tensor) -> bool:
    return values.dim() > 1 and values.shape[-1] > 1


def _dot(first: Tensor, second: Tensor, dim: int) -> Tensor:
    return (first * second).sum(dim)


class OfCandidates(Wrapper):
    """A criterion of rankers, given the scores of each query's candidates.

    Queries with equally many candidates are given to it together, and the value is the mean over
    all queries. One that compares candidates with each other is given no query with fewer than two.

    Args:
        criterion: takes `(queries, candidates)` of student and teacher, and the mean of what it
            says of a query: [`MarginMSE`][], [`ListwiseKL`][], or your own. If it has an argument
            `candidates`, it is given all queries at once, and there the truth value of each entry.
        similarity: `cosine` or `dot`.
        scale: what scores of vectors are multiplied by.
    """

    def __init__(self, criterion: Criterion, similarity: str = "cosine", scale: float = 1.0):
        super().__init__(criterion)
        check_choice("similarity", similarity, SIMILARITIES)
        check_positive("scale", scale)
        self.similarity, self.scale = similarity, scale
        compares = self.criterion.compares_entries or self.criterion.needs_classes
        self.fewest = 2 if compares else 1
        # What it compares are candidates, and there are such whatever the task.
        self.needs_classes = self.compares_entries = False

    def around(self, criterion: Criterion) -> "OfCandidates":
        """The same around another criterion."""
        return OfCandidates(criterion, self.similarity, self.scale)

    @property
    def takes_mask(self) -> bool:
        """It takes none: which queries count follows from the teacher's scores."""
        return False

    def counted(self, **inputs: Tensor) -> Tensor | None:
        """Queries with candidates enough, of which the teacher's scores are known, if it reads any.

        The first texts of their rows count once each.
        """
        place, scores = inputs["place"], inputs.get("teacher")
        begins, is_candidate = row_begins(place), place > 0
        query = begins.cumsum(0) - 1
        # As many as there could be at most: how many there are is known to the device alone.
        zeros = torch.zeros(len(place), dtype=torch.long, device=place.device)
        found = zeros.index_add(0, query, is_candidate.long()) >= self.fewest
        if scores is not None and not _are_vectors(scores):
            unknown = scores.flatten().isnan() & is_candidate
            found &= zeros.index_add(0, query, unknown.long()) == 0
        return begins & found[query]

    def forward(
        self,
        student: Float[Tensor, "texts ..."],
        teacher: Float[Tensor, "texts ..."],
        place: Int[Tensor, " texts"],
    ) -> Float[Tensor, ""]:
        """The criterion of the queries that count.

        Args:
            student: vectors `(texts, width)`, or scores `(texts,)` or `(texts, 1)`.
            teacher: vectors, of any width, or scores, NaN for queries.
            place: of each text in its row: 0 for the query; see [`of_candidates`][].

        Raises:
            ValueError: for queries of unequal lengths and a criterion that compares queries.
        """
        scores, there = of_candidates(student, place, self.similarity, self.scale)
        taught, _ = of_candidates(teacher, place, self.similarity, self.scale)
        counted = self.counted(place=place, teacher=teacher)
        assert counted is not None
        kept = counted[row_begins(place)]
        if not kept.any():
            return 0.0 * student.sum()
        scores, taught, there = scores[kept], taught[kept], there[kept]
        sizes = there.sum(dim=1)
        lengths = sizes.unique().tolist()
        if "candidates" in self.criterion.signature.parameters and len(lengths) > 1:
            return self.criterion(scores, taught, candidates=there)
        if len(lengths) > 1 and self.criterion.across_samples:
            raise ValueError(
                f"{self.criterion.class_name} compares queries with each other, so that all need "
                f"equally many candidates, and these have {lengths[0]} to {lengths[-1]}. Give each "
                "query as many, or take another criterion, such as ListwiseKL."
            )
        total = scores.new_zeros(())
        for length in lengths:
            own = sizes == length
            value = self.criterion(scores[own, :length], taught[own, :length])
            total = total + value * own.sum()
        return total / len(sizes)

    def extra_repr(self) -> str:  # noqa: D102
        return f"similarity={self.similarity!r}, scale={self.scale}"
