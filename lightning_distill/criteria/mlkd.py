"""Multi-level logit distillation: samples, classes and batch, at several temperatures."""

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, without_autocast
from ._log_probabilities import kl, log_probabilities
from ._parts import learns
from ._rows import logit_rows
from .criterion import Criterion

TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)


def mlkd(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    temperatures: Sequence[float] = TEMPERATURES,
) -> Float[Tensor, ""]:
    r"""KL, and squared difference of the correlations of samples and of classes.

    $$\frac{1}{|\mathcal T|} \sum_{\tau \in \mathcal T} \Big( \frac{\tau^2}{B} \sum_b
    \mathrm{KL}(p_b \,\Vert\, q_b) + \frac{1}{B} \lVert P P^\top - Q Q^\top \rVert_F^2
    + \frac{1}{C} \lVert P^\top P - Q^\top Q \rVert_F^2 \Big)$$

    where the rows of $P$ and $Q$ are the probabilities of teacher and student at $\tau$. The paper
    adds this for two augmented views of a picture; give each as a term of its own.

    The authors' program adds the temperatures up, which is five times as much; takes the last two
    parts of one view alone, and halves what it takes of that view; and reads the other view's
    logits at two temperatures from the first.

    References:
        Jin, Wang and Lin, *Multi-Level Logit Distillation*, CVPR 2023, eq. 3 to 9.
    """
    (total,) = in_full_precision(student.new_zeros(()))
    for temperature in temperatures:
        log_q, log_p = log_probabilities(student, teacher, temperature)
        total = total + kl(log_p, log_q).mean() * temperature**2
        of_samples, of_classes = _correlations(log_q.exp(), log_p.exp())
        total = total + of_samples / len(student) + of_classes / student.shape[1]
    return total / len(temperatures)


def _correlations(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Squared differences of the correlations of the rows, and of those of the columns."""
    if p.shape[0] > p.shape[1]:
        of_columns, of_rows = _correlations(q.T, p.T)
        return of_rows, of_columns
    # P P^T - Q Q^T = (D S^T + S D^T) / 2, and the trace of a product may be turned round, so that
    # the larger of the two matrices is never made.
    difference, total = p - q, p + q
    with without_autocast(p):
        across = difference @ total.T
        own = (difference @ difference.T * (total @ total.T)).sum()
    of_rows = (across + across.T).square().sum() / 4
    return of_rows, ((across * across.T).sum() + own) / 2


class MLKD(Criterion):
    """[`mlkd`][] of the samples that count, whatever their leading shape.

    Args:
        temperatures: at each of which the three parts are taken; their mean is the value.
        gather: in training, compare the samples of all processes with each other, not only those of
            one.
    """

    needs_classes = True
    across_samples = True

    def __init__(self, temperatures: Sequence[float] = TEMPERATURES, gather: bool = False):
        super().__init__()
        if not temperatures:
            raise ValueError("`temperatures` is empty: name at least one.")
        for temperature in temperatures:
            check_positive("temperatures", temperature)
        self.temperatures, self.gather = tuple(temperatures), gather

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are none."""
        student, teacher = logit_rows(student, teacher, mask, self.gather and learns(self))
        return student.sum() if len(student) == 0 else mlkd(student, teacher, self.temperatures)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperatures={self.temperatures}"
