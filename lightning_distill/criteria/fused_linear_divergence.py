"""Fused linear divergence: two language models compared without their logits in memory."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import (
    check_positive,
    in_full_precision,
    masked_mean,
    mean_of,
    sum_over_ranks,
    without_autocast,
)
from ._fused_linear import FusedLinear, MIB, Side, Work
from ._weighing import in_force
from .hard_label import hard_label, UNLABELLED
from .soft_target import SoftTarget


def fused_linear_divergence(
    student: Float[Tensor, "... student_width"],
    teacher: Float[Tensor, "... teacher_width"],
    student_head: Any,
    teacher_head: Any,
    criterion: nn.Module,
    shared_vocab: int | None = None,
) -> Float[Tensor, "..."]:
    """What `criterion` says of the logits of both per token, in nats; the whole logits are made.

    The plain way to what [`FusedLinearDivergence`][] finds in chunks; arguments are as there.
    """
    logits = _logits(student, teacher, student_head, teacher_head, shared_vocab)
    values, _ = criterion.with_gradient()(*(x.detach() for x in logits))
    return values  # type: ignore[no-any-return]


def _logits(
    student: Tensor, teacher: Tensor, student_head: Any, teacher_head: Any, shared: int | None
) -> list[Tensor]:
    shared = _shared_vocab(student_head, teacher_head, shared)
    found = []
    for hidden, head in ((student, student_head), (teacher, teacher_head)):
        weight, bias, scale, softcap = _parts(head)
        logits = F.linear(hidden, weight[:shared], None if bias is None else bias[:shared])
        (logits,) = in_full_precision(logits)
        logits = logits * scale
        found.append(logits if softcap is None else softcap * torch.tanh(logits / softcap))
    return found


class FusedLinearDivergence(nn.Module):
    r"""Mean over the tokens that count of a divergence between the logits of two heads.

    $$\frac1N \sum_i D(W_s h^s_i, W_t h^t_i) + w \, \mathrm{CE}(W_s h^s_i, y_i)$$

    from hidden states and heads, chunk by chunk, so that the logits `(tokens, vocabulary)` of
    neither model are ever whole in memory. The gradient is computed in the forward and kept in its
    place; there is no second derivative. Tokens that do not count are left out before anything is
    computed. Products are taken in the type of the hidden states, or that of autocast; divergences
    and the sum of the weight's gradient in float32 at least.

    A head is an `nn.Linear`, or anything else with a `weight` `(vocabulary, width)`, and where they
    differ from `None` a `bias`, a `scale` $k$ and a `softcap` $c$: the logits are
    $c \tanh(k (W h + b) / c)$. No gradient reaches the teacher's; one that is frozen costs nothing.
    Of heads of different length, as padded ones are, the first ids are compared that both have.

    Args:
        criterion: [`SoftTarget`][] at temperature 1 by default, [`ReverseKL`][], [`JSD`][],
            [`SkewKL`][], [`SkewReverseKL`][], [`TotalVariation`][] or [`TAID`][]; any module with
            a method `with_gradient` as they have it.
        label_weight: $w$, of the cross-entropy with the labels in the same pass.
        shared_vocab: how many ids both models share; the shorter head's by default.
        shift_labels: labels are the input's own tokens, as Hugging Face's collators give them, so
            that position $i$ is to say label $i + 1$.
        chunk_mb: MiB for the logits of a chunk, of both models together; 36 on a CPU and 1024
            elsewhere by default.
        fused: false computes the same from whole logits with plain autograd.

    References:
        Hsu et al., *Liger Kernel: Efficient Triton Kernels for LLM Training*, 2024,
        https://arxiv.org/abs/2410.10989, section 3.2; Wijmans et al., *Cut Your Losses in
        Large-Vocabulary Language Models*, 2024, https://arxiv.org/abs/2411.09009.
    """

    # Where there is a mask, it alone says over which tokens the divergence is a mean.
    by_mask = True

    def __init__(
        self,
        criterion: nn.Module | None = None,
        label_weight: float = 0.0,
        shared_vocab: int | None = None,
        shift_labels: bool = False,
        chunk_mb: float | None = None,
        fused: bool = True,
    ):
        super().__init__()
        criterion = SoftTarget(temperature=1.0) if criterion is None else criterion
        if not hasattr(criterion, "with_gradient"):
            raise ValueError(
                f"{type(criterion).__name__} says nothing of its gradient, which is needed here. "
                "Choose SoftTarget, ReverseKL, JSD, SkewKL, SkewReverseKL, TotalVariation or TAID, "
                "or give it a method `with_gradient`; or make it a term on the logits themselves."
            )
        if hasattr(criterion, "temperature"):
            check_positive("temperature", criterion.temperature)  # type: ignore[arg-type]
        if isinstance(label_weight, bool) or not 0 <= label_weight < math.inf:
            raise ValueError(
                f"`label_weight` must be finite and not negative, got {label_weight!r}."
            )
        if chunk_mb is not None:
            check_positive("chunk_mb", chunk_mb)
        if shared_vocab is not None and shared_vocab < 1:
            raise ValueError(f"`shared_vocab` must be at least 1, got {shared_vocab}.")
        self.criterion, self.label_weight = criterion, float(label_weight)
        self.shared_vocab, self.shift_labels = shared_vocab, shift_labels
        self.chunk_mb, self.fused = chunk_mb, fused

    def forward(
        self,
        student: Float[Tensor, "... student_width"],
        teacher: Float[Tensor, "... teacher_width"],
        student_head: Any,
        teacher_head: Any,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
        labels: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the tokens that count.

        Args:
            student: what the student's head is given.
            teacher: what the teacher's head is given, for as many tokens.
            student_head: the student's head.
            teacher_head: the teacher's head.
            mask: which tokens count; those with a label (not -100) by default, all if there are no
                labels.
            labels: what each position is to say; needed for `label_weight`. The cross-entropy is
                the mean over those that have one among the tokens that count.

        Raises:
            ValueError: for tensors that do not fit, and within [`SampleWeighted`][], as the values
                of tokens are summed while they are found.
        """
        if in_force() is not None:
            raise ValueError(
                "FusedLinearDivergence cannot be weighed by sample: it sums over the tokens while "
                "it computes them. Use the criterion itself on the logits."
            )
        _check_hidden(student, teacher)
        if self.label_weight and labels is None:
            raise ValueError(
                f"`label_weight` is {self.label_weight:.4g} and there are no labels: add "
                "labels=batch.labels to the term's inputs, or set `label_weight` to 0."
            )
        if labels is not None:
            if labels.shape != student.shape[:-1]:
                raise ValueError(
                    f"`labels` must have one entry per token, shape {tuple(student.shape[:-1])}, "
                    f"got {tuple(labels.shape)}."
                )
            labels = _shifted(labels) if self.shift_labels else labels
        counted = _counted(student, mask, labels)
        if not self.label_weight:
            labels = None
        elif labels is not None:
            labels = labels.masked_fill(~counted, UNLABELLED)
        if not self.fused:
            logits = _logits(student, teacher, student_head, teacher_head, self.shared_vocab)
            loss = self.criterion(logits[0], logits[1].detach(), counted)
            if labels is not None:
                cross_entropy = masked_mean(hard_label(logits[0], labels), labels != UNLABELLED)
                loss = loss + self.label_weight * cross_entropy
            return loss  # type: ignore[no-any-return]
        return self._fused(student, teacher.detach(), student_head, teacher_head, counted, labels)

    def _fused(
        self,
        student: Tensor,
        teacher: Tensor,
        student_head: Any,
        teacher_head: Any,
        counted: Tensor,
        labels: Tensor | None,
    ) -> Tensor:
        shared = _shared_vocab(student_head, teacher_head, self.shared_vocab)
        if not counted.all():
            student, teacher = student[counted], teacher[counted]
            labels = None if labels is None else labels[counted]
        student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)
        labels = None if labels is None else labels.flatten()
        count = torch.tensor(len(student), device=student.device)
        label_weight: Tensor | float = self.label_weight
        if labels is not None:
            # The sum is divided by the number of tokens, this part of it by that of labels.
            both = sum_over_ranks(torch.stack([count, (labels != UNLABELLED).sum()]))
            label_weight = label_weight * both[0] / both[1].clamp(min=1)
        weight, bias, _, _ = _parts(student_head)
        learns = [
            torch.is_grad_enabled() and x is not None and x.requires_grad
            for x in (student, weight, bias)
        ]
        device = student.device.type
        chunk_mb = self.chunk_mb or (36 if device == "cpu" else 1024)
        lower = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with without_autocast(student):
            work = Work(
                student=_side("student", student, student_head, shared, lower),
                teacher=_side("teacher", teacher, teacher_head, shared, lower),
                divergence=self.criterion.with_gradient(),  # type: ignore[operator]
                labels=labels,
                label_weight=label_weight,
                chunk_bytes=int(chunk_mb * MIB),
                hidden=learns[0],
                weight=learns[1],
                bias=learns[2],
                vocabulary=len(weight),
            )
            total, values = FusedLinear.apply(student, weight, bias, work)
            loss = mean_of(total, count)
        if hasattr(self.criterion, "follow"):
            self.criterion.follow(mean_of(values.sum(), count))
        return loss

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"label_weight={self.label_weight}, shared_vocab={self.shared_vocab}, "
            f"shift_labels={self.shift_labels}, chunk_mb={self.chunk_mb}, fused={self.fused}"
        )


def _check_hidden(student: Tensor, teacher: Tensor) -> None:
    if student.dim() < 2 or student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            "student and teacher must be hidden states (..., tokens, width) of the same tokens, "
            f"got shapes {tuple(student.shape)} and {tuple(teacher.shape)}. "
            "Do both read the same text with the same tokenizer?"
        )


def _counted(student: Tensor, mask: Tensor | None, labels: Tensor | None) -> Tensor:
    if mask is not None:
        if mask.shape != student.shape[:-1]:
            raise ValueError(
                f"`mask` must have one entry per token, shape {tuple(student.shape[:-1])}, got "
                f"{tuple(mask.shape)}."
            )
        return mask != 0
    if labels is not None:
        return labels != UNLABELLED
    return torch.ones(student.shape[:-1], dtype=torch.bool, device=student.device)


def _shifted(labels: Tensor) -> Tensor:
    return F.pad(labels[..., 1:], (0, 1), value=UNLABELLED)


def _parts(head: Any) -> tuple[Tensor, Tensor | None, float, float | None]:
    """Weight, bias, scale and softcap of a head."""
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ValueError(
            "A head must have a `weight` of shape (vocabulary, width), as an nn.Linear has, got "
            f"{type(head).__name__}"
            + (f" with shape {tuple(weight.shape)}." if isinstance(weight, Tensor) else ".")
        )
    scale, softcap = getattr(head, "scale", None), getattr(head, "softcap", None)
    return weight, getattr(head, "bias", None), 1.0 if scale is None else float(scale), softcap


def _shared_vocab(student_head: Any, teacher_head: Any, shared: int | None) -> int:
    sizes = [len(_parts(head)[0]) for head in (student_head, teacher_head)]
    if shared is not None and shared > min(sizes):
        raise ValueError(
            f"`shared_vocab` is {shared}, and the heads have {sizes[0]} (student) and {sizes[1]} "
            "(teacher) rows; leave it null to compare all that both have."
        )
    return min(sizes) if shared is None else shared


def _side(role: str, hidden: Tensor, head: Any, shared: int, lower: torch.dtype | None) -> Side:
    weight, bias, scale, softcap = _parts(head)
    if hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"The {role}'s hidden states are {hidden.shape[-1]} wide and its head takes "
            f"{weight.shape[1]}. Are they what the head is given ({role}.layer_input:PATH)?"
        )
    tensors = [hidden.detach(), weight.detach()[:shared]]
    tensors += [] if bias is None else [bias.detach()[:shared]]
    if lower is not None and all(t.dtype != torch.float64 for t in tensors):
        tensors = [t.to(lower) for t in tensors]
    kinds = {t.dtype for t in tensors}
    if len(kinds) > 1:
        raise ValueError(
            f"The {role}'s hidden states and head must have one type, got "
            f"{', '.join(sorted(map(str, kinds)))}. Convert one, or use autocast."
        )
    hidden, weight = tensors[:2]
    return Side(hidden, weight, None if bias is None else tensors[2], scale, softcap)
