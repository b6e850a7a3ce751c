"""How alike layers of two models are, and which pairs of them are the most alike."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ..criteria._check import without_autocast
from ..criteria._rows import feature_rows

# As many rows of a batch are looked at: the Gram matrices of more would be large, and say the same.
ROWS = 512


class SimilarLayers(nn.Module):
    """Layers of two models that are paired by how alike they are in a few batches.

    A checkpoint keeps what was found, so that a run that goes on compares the same pairs.
    """

    similarity: Float[Tensor, "students teachers"] | None

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Tensor] = []
        self.register_buffer("similarity", None)
        # How the layers are read; what reads them says so.
        self.students: list[Any] = []
        self.teachers: list[Any] = []

    def look(
        self,
        students: Sequence[Float[Tensor, "batch ..."]],
        teachers: Sequence[Float[Tensor, "batch ..."]],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> None:
        """See how alike they are in one more batch, as [`layer_similarity`][] says."""
        self._seen.append(layer_similarity(students, teachers, mask).cpu())

    def decide(self, agree: Callable[[Any], Any]) -> None:
        """Take the mean over the batches; `agree` makes one of what the processes have found."""
        self.similarity = agree(torch.stack(self._seen).mean(dim=0))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """See [`most_similar_pairs`][]; only after `decide`."""
        return most_similar_pairs(self.similarity)  # type: ignore[arg-type]

    def describe(self) -> str:
        """The pairs, in words."""
        return ", ".join(
            f"{self.students[s]} learns from {self.teachers[t]} ({self.similarity[s, t]:.2f})"  # type: ignore[index]
            for s, t in self.pairs
        )


@torch.no_grad()
def layer_similarity(
    students: Sequence[Float[Tensor, "batch ..."]],
    teachers: Sequence[Float[Tensor, "batch ..."]],
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
) -> Float[Tensor, "students teachers"]:
    """Linear centred kernel alignment of each layer with each, from 0 to 1.

    It is 1 for layers that are the same up to rotation and scale, and 0 where one is constant.

    Args:
        students: a tensor for each layer; widths may differ.
        teachers: the same of the teacher.
        mask: which tokens count, for tensors that begin with its shape; others are compared row by
            row of the batch.

    References:
        Kornblith et al., *Similarity of Neural Network Representations Revisited*, 2019,
        https://arxiv.org/abs/1905.00414, eq. 3.
    """
    with without_autocast(students[0]):
        own, others = (torch.stack([_gram(x, mask) for x in one]) for one in (students, teachers))
        return own.flatten(1) @ others.flatten(1).T


def _gram(features: Tensor, mask: Tensor | None) -> Float[Tensor, "rows rows"]:
    """The centred Gram matrix, of norm 1; of norm 0 for what is constant."""
    fits = mask is not None and features.shape[: mask.dim()] == mask.shape
    rows, _ = feature_rows(features, features, mask if fits else None, gather=False)
    if len(rows) > ROWS:
        # Spread over the batch, and the same of every layer.
        rows = rows[torch.linspace(0, len(rows) - 1, ROWS, device=rows.device).long()]
    # Of length about 1, so that no square of it is too large for float32.
    rows = rows - rows.mean(dim=0)
    rows = rows / rows.norm(dim=1).max().clamp(min=1e-20)
    gram = rows @ rows.T
    return gram / gram.norm().clamp(min=1e-20)


def most_similar_pairs(similarity: Float[Tensor, "students teachers"]) -> list[tuple[int, int]]:
    """A layer of the teacher for each of the student, so that all pairs together are most alike.

    Higher layers of the student go with higher ones of the teacher, each with its own; where the
    student has more layers, several go with one. Of equal choices the lowest layers are taken.
    """
    values = similarity.tolist()
    teachers = range(len(values[0]))
    apart = int(len(values) <= len(teachers))
    # best[t] is the largest sum so far if the last student's layer goes with t; `before` keeps what
    # led to it.
    best, before = list(values[0]), []
    for row in values[1:]:
        # The best of the layers up to each, and which it is.
        upto = [max(range(t + 1), key=lambda i: (best[i], -i)) for t in teachers]
        came = [upto[t - apart] if t >= apart else -1 for t in teachers]
        best = [row[t] + best[came[t]] if came[t] >= 0 else -float("inf") for t in teachers]
        before.append(came)
    chosen = [max(teachers, key=lambda t: (best[t], -t))]
    for came in reversed(before):
        chosen.append(came[chosen[-1]])
    return list(enumerate(reversed(chosen)))
