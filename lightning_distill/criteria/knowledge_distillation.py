"""Label loss and teacher loss in one criterion, as in Intel's neural-compressor."""

import warnings
from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import check_choice, check_positive, masked_mean, Number, positive
from .hard_label import mean_hard_label
from .logit_mse import logit_mse
from .soft_cross_entropy import soft_cross_entropy
from .soft_target import soft_target


class KnowledgeDistillation(nn.Module):
    r"""$w_0 L_\mathrm{label} + w_1 \tau^2 D(s / \tau, t / \tau)$.

    The arguments are those of `KnowledgeDistillationLossConfig` of neural-compressor 2.6 and of
    intel-extension-for-transformers. Each divergence is averaged over samples; `MSE` of logits
    does not depend on the temperature.

    Args:
        temperature: positive number or schedule.
        loss_types: the label loss, `CE` or `MSE` (of numbers, not of classes), and the teacher
            loss, `CE`, `KL` or `MSE`.
        loss_weight_ratio: their weights, not negative. A part of weight 0 is not computed.
        compat: `"inc"` divides `KL` by the number of classes too, as neural-compressor does.

    Raises:
        ValueError: for other types, weights, or numbers of them.

    References:
        Hinton, Vinyals and Dean, 2015, https://arxiv.org/abs/1503.02531, section 2.
    """

    def __init__(
        self,
        temperature: Number = 1.0,
        loss_types: Sequence[str] = ("CE", "CE"),
        loss_weight_ratio: Sequence[float] = (0.5, 0.5),
        compat: str | None = None,
    ):
        super().__init__()
        check_positive("temperature", temperature)
        types, weights = [str(t) for t in loss_types], [float(w) for w in loss_weight_ratio]
        for name, given in (("loss_types", types), ("loss_weight_ratio", weights)):
            if len(given) != 2:
                raise ValueError(
                    f"`{name}` needs two entries, for the labels and for the teacher, "
                    f"got {len(given)}."
                )
        check_choice("loss_types[0]", types[0], ("CE", "MSE"))
        check_choice("loss_types[1]", types[1], ("CE", "KL", "MSE"))
        if min(weights) < 0:
            raise ValueError(f"`loss_weight_ratio` must not be negative, got {weights}.")
        if not any(weights):
            raise ValueError(
                "Both numbers of `loss_weight_ratio` are 0, so there is nothing to learn; give one "
                "of them a positive number."
            )
        if abs(sum(weights) - 1) > 1e-6:
            warnings.warn(f"`loss_weight_ratio` sums to {sum(weights):.4g}, not to 1", stacklevel=2)
        if compat not in (None, "inc"):
            raise ValueError(f"`compat` must be null or 'inc', got {compat!r}.")
        self.temperature, self.loss_types = temperature, types
        self.loss_weight_ratio, self.compat = weights, compat

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        labels: Float[Tensor, "..."] | Int[Tensor, "..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum; rows without a label count for the teacher only."""
        of_label, of_teacher = self.loss_weight_ratio
        parts = []
        if of_label > 0 or of_teacher == 0:
            kind = {"CE": "cross_entropy", "MSE": "mse"}[self.loss_types[0]]
            parts.append(of_label * mean_hard_label(student, labels, kind))
        if of_teacher > 0:
            parts.append(of_teacher * masked_mean(self._divergence(student, teacher), mask))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        temperature = positive("temperature", self.temperature)
        if self.loss_types[1] == "MSE":
            return logit_mse(student, teacher)
        if self.loss_types[1] == "CE":
            return soft_cross_entropy(student, teacher, temperature)
        values = soft_target(student, teacher, temperature)
        return values / student.shape[-1] if self.compat == "inc" else values

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"temperature={self.temperature}, loss_types={self.loss_types}, "
            f"loss_weight_ratio={self.loss_weight_ratio}, compat={self.compat!r}"
        )
