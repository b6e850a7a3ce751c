"""Universal logit distillation: sorted probabilities, for vocabularies that share nothing."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, masked_mean, Number, positive
from ._log_probabilities import through_softmax
from ._spans import check_spans, first_positions, span_count, spans_of_both
from .criterion import Criterion

# Of probabilities of both at once, in numbers: 16 MiB of float32, and as much a few times more.
CHUNK = 4 * 2**20


def uld(
    student: Float[Tensor, "*batch student_classes"],
    teacher: Float[Tensor, "*batch teacher_classes"],
    temperature: float = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""Distance of the sorted probabilities per position, from 0 to 2.

    $$\sum_i |q_{(i)} - p_{(i)}|, \quad
    q_{(1)} \ge q_{(2)} \ge \dots, \; p_{(1)} \ge p_{(2)} \ge \dots$$

    with $q = \sigma(s / \tau)$, $p = \sigma(t / \tau)$, and zeros in the place of what the smaller
    vocabulary lacks. It is a Wasserstein distance in which every exchange of one token for
    another costs the same. It sees how sure the teacher is and between how many tokens it wavers,
    and nothing of which tokens these are. It is no divergence in nats, and has no factor $\tau^2$.

    References:
        Boizard et al., *Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss
        for LLMs*, 2024, https://arxiv.org/abs/2402.12030.
    """
    _check(student, teacher)
    check_positive("temperature", temperature)
    student, teacher = in_full_precision(student, teacher)
    q, p = (
        (x / temperature).softmax(-1).sort(-1, descending=True).values for x in (student, teacher)
    )
    q, p = _padded(q, p)
    return (q - p).abs().sum(-1)


def _check(student: Tensor, teacher: Tensor) -> None:
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            "student and teacher must have the same positions, got logits of shapes "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}; only the vocabularies may differ."
        )


def _padded(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    classes = max(q.shape[-1], p.shape[-1])
    return F.pad(q, (0, classes - q.shape[-1])), F.pad(p, (0, classes - p.shape[-1]))


def uld_with_gradient(
    student: Float[Tensor, "*batch student_classes"],
    teacher: Float[Tensor, "*batch teacher_classes"],
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch student_classes"]]:
    r"""[`uld`][] and its gradient with respect to the student's logits.

    $$\frac1\tau \, q_c \, (g_c - \textstyle\sum_k q_k g_k),
    \quad g_c = \mathrm{sign}(q_c - p_{(r_c)})$$

    where $r_c$ is the rank of class $c$ with the student.
    """
    student, teacher = in_full_precision(student, teacher)
    q, p = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    ordered, order = q.sort(-1, descending=True)
    padded, p = _padded(ordered, p.sort(-1, descending=True).values)
    difference = padded - p
    signs = difference.sign()[..., : q.shape[-1]]
    slope = torch.empty_like(q).scatter_(-1, order, signs)
    return difference.abs().sum(-1), through_softmax(q, slope, 1.0 / temperature)


class _Chunked(torch.autograd.Function):
    """[`uld`][] of some positions of each, few at a time, with the gradient in the forward."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        of_student: Tensor,
        of_teacher: Tensor,
        temperature: float,
    ) -> Tensor:
        step = max(CHUNK // (student.shape[-1] + teacher.shape[-1]), 1)
        chunks = list(zip(of_student.split(step), of_teacher.split(step), strict=True))
        learns = ctx.needs_input_grad[0]
        # In half precision the loss is scaled after this, and what is too small here stays lost.
        kind = torch.float32 if student.dtype == torch.float16 else student.dtype
        size = (len(of_student) if learns else 0, student.shape[-1])
        gradient = student.new_empty(size, dtype=kind)
        values = []
        for i, (mine, others) in enumerate(chunks):
            rows = student.index_select(0, mine), teacher.index_select(0, others)
            if learns:
                value, gradient[i * step : i * step + len(mine)] = uld_with_gradient(
                    *rows, temperature
                )
            else:
                value = uld(*rows, temperature)
            values.append(value)
        ctx.save_for_backward(gradient, of_student)
        ctx.size, ctx.dtype = len(student), student.dtype
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:  # type: ignore[override]
        gradient, of_student = ctx.saved_tensors
        rows = (gradient * upstream.unsqueeze(-1)).to(ctx.dtype)
        whole = rows.new_zeros(ctx.size, rows.shape[-1])
        return whole.index_copy_(0, of_student, rows), None, None, None, None


class ULD(Criterion):
    """Mean of [`uld`][] over the spans: stretches of text that both models have tokens for.

    For models with different tokenizers. Of each span the positions are compared at which either
    model predicts its first token: there both have read the same text and say how it goes on. The
    paper compares the i-th token of one with the i-th token of the other and leaves out what the
    longer one has more, so that after a few tokens the two speak of different places; and it adds
    the cross-entropy of the labels, which here is a term of its own ([`HardLabel`][]).

    The sorted probabilities of all positions are never in memory at once; the gradient of the
    student's logits is, in their type.

    Args:
        temperature: flattens both distributions before they are compared; a positive number or a
            schedule.
    """

    needs_classes = True

    # The classes of student and teacher need not be the same.
    any_classes = True

    def __init__(self, temperature: Number = 1.0):
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "rows student_tokens student_classes"],
        teacher: Float[Tensor, "teacher_rows teacher_tokens teacher_classes"],
        student_spans: Int[Tensor, "..."],
        teacher_spans: Int[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        """The mean over the spans that both have.

        Args:
            student: its logits.
            teacher: its logits.
            student_spans: per position of the student's rows, `(rows, student_tokens)`, the number
                of the span that the token belongs to which this position predicts; -1 where there
                is none. `lightning_distill.data.TokenAlignment` makes them.
            teacher_spans: the same of the teacher, `(rows, teacher_tokens)`.

        Raises:
            ValueError: for shapes that do not go together.
        """
        check_spans(student, teacher, student_spans, teacher_spans)
        temperature = positive("temperature", self.temperature)
        count = span_count(student_spans, teacher_spans)
        mine, have = first_positions(student_spans, count)
        others, given = first_positions(teacher_spans, count)
        both = have & given
        row, _ = both.nonzero(as_tuple=True)
        values: Tensor = _Chunked.apply(
            student.flatten(0, 1),
            teacher.detach().flatten(0, 1),
            row * student.shape[1] + mine[both],
            row * teacher.shape[1] + others[both],
            temperature,
        )
        grid = values.new_zeros(both.shape).masked_scatter(both, values)
        return masked_mean(grid, both)

    def counted(self, **inputs: Any) -> Tensor | None:
        """As many positions as there are spans that the loss is the mean of; `None` if unknown."""
        mine, others = inputs.get("student_spans"), inputs.get("teacher_spans")
        return None if mine is None or others is None else spans_of_both(mine, others)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
