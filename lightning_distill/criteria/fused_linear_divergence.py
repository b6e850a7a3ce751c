"""Fused linear divergence: two language models compared without their logits in memory."""

from typing import Any

from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._fused_criterion import FusedCriterion, mean_over_chunks, refuse_weights, tokens_that_count
from ._fused_linear import TeacherLogits
from ._heads import parts, side_of, whole_logits
from ._plain import as_criterion
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
    divergence = as_criterion(criterion).with_gradient()
    assert divergence is not None
    values, _ = divergence(*(x.detach() for x in logits))
    return values


def _logits(
    student: Tensor, teacher: Tensor, student_head: Any, teacher_head: Any, shared: int | None
) -> list[Tensor]:
    shared = _shared_vocab(student_head, teacher_head, shared)
    both = (student, student_head), (teacher, teacher_head)
    return [whole_logits(hidden, head, shared) for hidden, head in both]


class FusedLinearDivergence(FusedCriterion):
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
        label_weight: $w$, of the cross-entropy with the labels in the same pass, over the ids that
            are compared. It is a mean of its own, over the tokens that have a label.
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

    def __init__(
        self,
        criterion: nn.Module | None = None,
        label_weight: float = 0.0,
        shared_vocab: int | None = None,
        shift_labels: bool = False,
        chunk_mb: float | None = None,
        fused: bool = True,
    ):
        super().__init__(label_weight, shared_vocab, shift_labels, chunk_mb, fused)
        criterion = SoftTarget(temperature=1.0) if criterion is None else as_criterion(criterion)
        if criterion.with_gradient() is None:
            raise ValueError(
                f"{type(criterion).__name__} says nothing of its gradient, which is needed here. "
                "Choose SoftTarget, ReverseKL, JSD, SkewKL, SkewReverseKL, TotalVariation or TAID, "
                "or give it a method `with_gradient`; or make it a term on the logits themselves."
            )
        self.criterion = criterion

    def observe(self, value: Float[Tensor, ""]) -> None:
        """Tell the criterion, which hears of the divergence alone."""
        self.criterion.observe(value)

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
        refuse_weights(self, "the criterion itself")
        _check_hidden(student, teacher)
        counted, labels = tokens_that_count(
            student, mask, labels, self.label_weight, self.shift_labels
        )
        if not self.fused:
            logits = _logits(student, teacher, student_head, teacher_head, self.shared_vocab)
            loss = self.criterion(logits[0], logits[1].detach(), counted)
            return self.plus_labels(loss, lambda: logits[0], labels)
        teacher = teacher.detach()
        divergence = self.criterion.with_gradient()
        assert divergence is not None
        shared = _shared_vocab(student_head, teacher_head, self.shared_vocab)
        loss, _ = mean_over_chunks(
            student,
            student_head,
            shared,
            counted,
            lambda select, lower: TeacherLogits(
                side_of("teacher", select(teacher), teacher_head, shared, lower),
                divergence,
            ),
            labels,
            self.label_weight,
            self.chunk_mb,
        )
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


def _shared_vocab(student_head: Any, teacher_head: Any, shared: int | None) -> int:
    sizes = [len(parts(head)[0]) for head in (student_head, teacher_head)]
    if shared is not None and shared > min(sizes):
        raise ValueError(
            f"`shared_vocab` is {shared}, and the heads have {sizes[0]} (student) and {sizes[1]} "
            "(teacher) rows; leave it null to compare all that both have."
        )
    return min(sizes) if shared is None else shared
