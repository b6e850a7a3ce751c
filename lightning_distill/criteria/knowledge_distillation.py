"""Label loss and teacher loss in one criterion, as in Intel's neural-compressor."""

import warnings
from collections.abc import Mapping, Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, check_positive, Number
from .criterion import Criterion, Part
from .hard_label import HardLabel
from .logit_mse import LogitMSE
from .soft_cross_entropy import SoftCrossEntropy
from .soft_target import SoftTarget

_LABEL = {"student": "student", "labels": "labels"}
_TEACHER = {"student": "student", "teacher": "teacher", "mask": "mask"}


class _PerClass(SoftTarget):
    """KL divided by the number of classes too, as neural-compressor takes the mean."""

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        return super().forward(student, teacher, mask) / student.shape[-1]


class KnowledgeDistillation(Criterion):
    r"""$w_0 L_\mathrm{label} + w_1 \tau^2 D(s / \tau, t / \tau)$.

    The arguments are those of `KnowledgeDistillationLossConfig` of neural-compressor 2.6 and of
    intel-extension-for-transformers. Each divergence is averaged over samples; `MSE` of logits
    does not depend on the temperature.

    In an [`Objective`][] each of the two is a term of its own, `NAME_label` and `NAME_teacher`, as
    the labelled rows count in the one and all rows in the other; `NAME` is logged as their sum.

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

    needs_classes = True

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

    def parts(self) -> Mapping[str, Part]:
        """The label loss (`label`) and the teacher loss (`teacher`), each a mean of its own."""
        found = {
            "label": Part(self._of_label(), self.loss_weight_ratio[0], _LABEL),
            "teacher": Part(self._of_teacher(), self.loss_weight_ratio[1], _TEACHER),
        }
        return {name: part for name, part in found.items() if part.weight > 0}

    def _of_label(self) -> Criterion:
        return HardLabel({"CE": "cross_entropy", "MSE": "mse"}[self.loss_types[0]])

    def _of_teacher(self) -> Criterion:
        if self.loss_types[1] == "MSE":
            return LogitMSE()
        if self.loss_types[1] == "CE":
            return SoftCrossEntropy(self.temperature)
        kind = _PerClass if self.compat == "inc" else SoftTarget
        return kind(self.temperature)

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        labels: Float[Tensor, "..."] | Int[Tensor, "..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum; rows without a label count for the teacher only."""
        given = {"student": student, "teacher": teacher, "labels": labels, "mask": mask}
        values = [
            part.weight * part.criterion(**{name: given[own] for name, own in part.inputs.items()})
            for part in self.parts().values()
        ]
        return values[0] if len(values) == 1 else values[0] + values[1]

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"temperature={self.temperature}, loss_types={self.loss_types}, "
            f"loss_weight_ratio={self.loss_weight_ratio}, compat={self.compat!r}"
        )
