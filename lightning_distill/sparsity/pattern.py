"""Which weights may be 0 alone, and which only together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Of outputs and inputs.
Matrix = Float[Tensor, "_ _"]


@dataclass(frozen=True)
class Pattern:
    """Groups of weights in a matrix that are kept or become 0 together.

    Attributes:
        rows: of a group.
        columns: of a group.
        of: if not 0, of so many columns in a row `columns` are kept, as 2 of 4.
    """

    rows: int = 1
    columns: int = 1
    of: int = 0

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read `single`, `2:4` or a size of blocks such as `16x16`."""
        text = str(text)
        if text == "single":
            return cls()
        if (match := re.fullmatch(r"(\d+):(\d+)", text)) is not None:
            kept, of = map(int, match.groups())
            if 0 < kept < of:
                return cls(1, kept, of)
        if (match := re.fullmatch(r"(\d+)x(\d+)", text)) is not None:
            rows, columns = map(int, match.groups())
            if rows and columns:
                return cls(rows, columns)
        raise ValueError(
            "`pattern` must be single (any weight), 2:4 (of 4 in a row 2 are kept; also 1:4, ...) "
            f"or a size of blocks such as 16x16 (outputs x inputs), got {text!r}."
        )

    @property
    def share(self) -> float | None:
        """The share of weights that are 0, where the pattern says it."""
        return 1 - self.columns / self.of if self.of else None

    @property
    def is_block(self) -> bool:
        """Whether several weights are kept or become 0 together."""
        return not self.of and self.rows * self.columns > 1

    def fits(self, matrix: Matrix) -> bool:
        """Whether the matrix can be divided so."""
        rows, columns = matrix.shape
        return rows % self.rows == 0 and columns % (self.of or self.columns) == 0

    def masks(
        self, scores: Sequence[Matrix], share: float, together: bool = False
    ) -> list[Bool[Tensor, "_ _"]]:
        """What is kept: the groups with the largest mean score.

        Args:
            scores: of each weight of some matrices that fit.
            share: of the groups of each matrix that become 0; where the pattern keeps some of so
                many in a row, the share of those rows of weights in which the others become 0.
            together: whether the groups of all matrices are compared, and not those of each alone.
        """
        values = [self._groups(one) for one in scores]
        if together:
            kept = _largest(torch.cat([v.flatten() for v in values]), share)
            parts = kept.split([v.numel() for v in values])
            chosen = [part.view_as(v) for part, v in zip(parts, values, strict=True)]
        else:
            chosen = [_largest(v.flatten(), share).view_as(v) for v in values]
        return [self._spread(c, s) for c, s in zip(chosen, scores, strict=True)]

    def _groups(self, scores: Matrix) -> Tensor:
        rows, columns = scores.shape
        if not self.of:
            size = rows // self.rows, self.rows, columns // self.columns, self.columns
            return scores.reshape(size).float().mean(dim=(1, 3))
        # What would be lost of each row of weights.
        of_rows = scores.reshape(rows, -1, self.of).float()
        return of_rows.sort(dim=-1).values[..., : self.of - self.columns].sum(dim=-1)

    def _spread(self, kept: Tensor, scores: Matrix) -> Tensor:
        if not self.of:
            return kept.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        of_rows = scores.reshape(scores.shape[0], -1, self.of)
        order = of_rows.argsort(dim=-1, stable=True, descending=True)
        mask = torch.zeros_like(of_rows, dtype=torch.bool)
        mask.scatter_(-1, order[..., : self.columns], True)
        return (mask | kept[..., None]).view_as(scores)


def _largest(values: Float[Tensor, " groups"], share: float) -> Bool[Tensor, " groups"]:
    """All but the smallest ones; of equal ones the first are left out."""
    kept = torch.ones_like(values, dtype=torch.bool)
    kept[values.argsort(stable=True)[: round(share * len(values))]] = False
    return kept
