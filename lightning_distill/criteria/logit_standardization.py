"""Logit standardisation: only the pattern of the logits counts, not their size."""

from typing import Any

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._check import in_full_precision
from ._wrapper import Wrapper
from .criterion import Criterion
from .soft_target import SoftTarget


def logit_standardization(
    logits: Float[Tensor, "*batch classes"], epsilon: float = 1e-7
) -> Float[Tensor, "*batch classes"]:
    r"""Logits of mean 0 and standard deviation 1 per sample.

    $$\frac{z - \bar z}{\mathrm{std}(z) + \epsilon}$$

    with the unbiased standard deviation. Logits that are all equal become 0.

    References:
        Sun et al., *Logit Standardization in Knowledge Distillation*, 2024,
        https://arxiv.org/abs/2403.01427, algorithm 1.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"One class has no spread; got logits of shape {tuple(logits.shape)}.")
    (logits,) = in_full_precision(logits)
    centred = logits - logits.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / (logits.shape[-1] - 1)
    # The square root has no gradient at 0, and is not needed there.
    flat = variance == 0
    deviation = torch.where(flat, 1.0, variance).sqrt().masked_fill(flat, 0.0)
    return centred / (deviation + epsilon)


class LogitStandardization(Wrapper):
    """Any criterion between logits, on standardised logits.

    Args:
        criterion: called as `criterion(student, teacher, ...)`; [`SoftTarget`][] at temperature 2
            by default, which the paper weighs by 9 beside a label loss of weight 0.1.
        epsilon: added to the standard deviation.
    """

    def __init__(self, criterion: nn.Module | None = None, epsilon: float = 1e-7):
        super().__init__(SoftTarget(temperature=2.0) if criterion is None else criterion)
        self.epsilon = epsilon

    def around(self, criterion: Criterion) -> "LogitStandardization":
        """The same for another criterion."""
        return LogitStandardization(criterion, self.epsilon)

    def prepare(self, student: Tensor, teacher: Tensor | None = None, **named: Any) -> None:
        """The criterion's; the sizes are the same."""
        self.criterion.prepare(student, *([] if teacher is None else [teacher]), **named)

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"] | None = None,
        *others: Any,
        **named: Any,
    ) -> Float[Tensor, ""]:
        """What the criterion says of standardised logits; other arguments go to it as they are."""
        logits = [student] if teacher is None else [student, teacher]
        standardised = [logit_standardization(x, self.epsilon) for x in logits]
        return self.criterion(*standardised, *others, **named)
