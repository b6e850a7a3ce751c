"""Whether student and teacher find the same texts alike, whatever the widths of their vectors."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

# So many texts make two million pairs, which is enough and takes a second.
MOST = 2000


class SimilarityAgreement(Metric):
    """Spearman's correlation of the cosines of all pairs of texts, of student and teacher.

    1 where both order all pairs alike. It needs no labels, and vectors of any widths. Of more than
    `most` texts those of the lowest rows are taken, whichever batch or process they come in.
    Kriegeskorte, Mur and Bandettini, "Representational similarity analysis", 2008,
    https://doi.org/10.3389/neuro.06.004.2008.

    Args:
        most: how many texts at most; at least three are needed.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    needs_teacher = True
    reads_vectors = True
    batch_entries = ("row",)
    # A text that is drawn twice would be compared with itself.
    compares_rows = True

    def __init__(self, most: int = MOST):
        super().__init__()
        if isinstance(most, bool) or not isinstance(most, int) or most < 3:
            raise ValueError(f"`most` must be a whole number of at least 3, got {most!r}.")
        self.most = most
        self.students: list[Tensor]
        self.teachers: list[Tensor]
        self.rows: list[Tensor]
        for name in ("students", "teachers", "rows"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        student: Float[Tensor, "texts _"],
        teacher: Float[Tensor, "texts _"],
        row: Int[Tensor, " texts"],
    ) -> None:
        """Take the vectors of one batch."""
        if len(student) != len(teacher):
            raise ValueError(
                f"There must be a vector of each model for each text, got {len(student)} and "
                f"{len(teacher)}."
            )
        for name, value in (("students", student), ("teachers", teacher), ("rows", row)):
            getattr(self, name).append(value.detach())

    def compute(self) -> Tensor:
        """The correlation over all batches and ranks; NaN for fewer than three texts."""
        chosen = dim_zero_cat(self.rows).argsort(stable=True)[: self.most]
        ranks = []
        for vectors in (self.students, self.teachers):
            unit = F.normalize(dim_zero_cat(vectors)[chosen].double(), dim=-1)
            cosines = unit @ unit.T
            above = torch.ones_like(cosines, dtype=torch.bool).triu(1)
            # Equal texts are equally alike, to more digits than a product of matrices gives.
            ranks.append(_ranks(cosines[above].round(decimals=6)))
        if len(ranks[0]) < 3:
            return torch.tensor(torch.nan, device=chosen.device)
        return torch.corrcoef(torch.stack(ranks))[0, 1].float()


def _ranks(values: Float[Tensor, " values"]) -> Float[Tensor, " values"]:
    """The rank of each value; equal ones share the mean of theirs."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[inverse]
