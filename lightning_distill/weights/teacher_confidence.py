"""Teacher confidence: samples of which the teacher is unsure count less."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._logits import check_logits


class TeacherConfidence(nn.Module):
    r"""A weight per sample: $1 - H(\sigma(t / \tau)) / \log C$, the teacher's certainty.

    It is 1 where the teacher gives one class all probability, and 0 where it gives each of the $C$
    classes the same. The paper weighs several teachers against each other by their entropy, in
    favour of the surer ones. That samples of one teacher are weighed, and by this formula, is ours.
    No gradient flows through it.

    Args:
        temperature: $\tau$; a higher one tells apart samples of which the teacher is nearly sure.

    Raises:
        ValueError: for a temperature that is not positive; when called, if the teacher's logits
            are missing or of one class.

    References:
        Kwon et al., *Adaptive Knowledge Distillation Based on Entropy*, 2020,
        https://doi.org/10.1109/ICASSP40776.2020.9054698.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        if not temperature > 0 or math.isinf(temperature):
            raise ValueError(f"`temperature` must be positive and finite, got {temperature}.")
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "..."] | None,
        teacher: Float[Tensor, "..."] | None,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The weight of every sample (*batch), of the teacher's logits (*batch, classes)."""
        teacher = check_logits("TeacherConfidence", "teacher", teacher).detach().float()
        p = (teacher / self.temperature).softmax(dim=-1)
        entropy = torch.special.entr(p).sum(dim=-1)
        # Rounding may put the entropy above its largest value; NaN stays, to be refused.
        return (1 - entropy / math.log(teacher.shape[-1])).clamp(min=0.0, max=1.0)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
