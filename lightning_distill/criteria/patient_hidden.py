"""Patient distillation: hidden states of unit length, layer by layer."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_same_shape, in_full_precision, masked_mean
from .criterion import Criterion


def patient_hidden(
    student: Float[Tensor, "*batch width"], teacher: Float[Tensor, "*batch width"]
) -> Float[Tensor, "*batch"]:
    r"""Squared distance of the normalised hidden states per token, from 0 to 4.

    $$\Big\lVert \frac{s}{\lVert s \rVert} - \frac{t}{\lVert t \rVert} \Big\rVert^2$$

    The paper takes the first token (`[CLS]`) of every layer but the last; its layers are the
    mappings `skip` and `last` of a term.

    References:
        Sun et al., *Patient Knowledge Distillation for BERT Model Compression*, 2019,
        https://arxiv.org/abs/1908.09355, eq. 7.
    """
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in (student, teacher)]
    return (unit[0] - unit[1]).square().sum(dim=-1)


class PatientHidden(Criterion):
    """Mean of [`patient_hidden`][] over the tokens that count.

    Args:
        first_token: compare the first token of each row alone, as the paper does; the others are
            not looked at.
    """

    def __init__(self, first_token: bool = False):
        super().__init__()
        self.first_token = first_token

    def counted(self, **inputs: Any) -> Tensor | None:
        """Of the first tokens alone, rows count."""
        return None if self.first_token else super().counted(**inputs)

    def forward(
        self,
        student: Float[Tensor, "*batch width"],
        teacher: Float[Tensor, "*batch width"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the tokens for which `mask` is true, or over the first ones of all rows."""
        if self.first_token:
            student, teacher, mask = student[:, 0], teacher[:, 0], None
        return masked_mean(patient_hidden(student, teacher), mask)
