"""Fused linear cross-entropy: a language model and the next token, without its logits in memory."""

from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import masked_mean
from ._fused_criterion import FusedCriterion, mean_over_chunks, refuse_weights, tokens_that_count
from ._fused_linear import Labels
from ._heads import parts, whole_logits
from .criterion import Criterion
from .hard_label import hard_label, UNLABELLED


def fused_linear_cross_entropy(
    student: Float[Tensor, "... width"], labels: Int[Tensor, "..."], student_head: Any
) -> Float[Tensor, "..."]:
    """Cross-entropy of each token, in nats, 0 without a label (-100); the whole logits are made.

    The plain way to what [`FusedLinearCrossEntropy`][] finds in chunks; arguments are as there.
    """
    classes = len(parts(student_head)[0])
    return hard_label(whole_logits(student, student_head, classes), labels)


class FusedLinearCrossEntropy(FusedCriterion):
    r"""Mean over the labelled tokens of the cross-entropy of a head's logits; no teacher.

    $$-\frac1N \sum_i \log\sigma(W h_i)_{y_i}$$

    from hidden states and head, chunk by chunk, so that the logits `(tokens, vocabulary)` are never
    whole in memory; as [`FusedLinearDivergence`][] in all else, heads included.

    Args:
        shift_labels: labels are the input's own tokens, as Hugging Face's collators give them, so
            that position $i$ is to say label $i + 1$.
        chunk_mb: MiB for the logits of a chunk; 36 on a CPU and 1024 elsewhere by default.
        fused: false computes the same from whole logits with plain autograd.

    References:
        Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models*, 2024,
        https://arxiv.org/abs/2411.09009; Hsu et al., *Liger Kernel: Efficient Triton Kernels for
        LLM Training*, 2024, https://arxiv.org/abs/2410.10989, section 3.2.
    """

    def __init__(
        self, shift_labels: bool = False, chunk_mb: float | None = None, fused: bool = True
    ):
        super().__init__(shift_labels=shift_labels, chunk_mb=chunk_mb, fused=fused)

    def counted(self, **inputs: Any) -> Tensor | None:
        """The tokens that have a label, of those that are true in the mask."""
        if inputs.get("labels") is not None:
            inputs["labels"] = self._placed(inputs["labels"])
        return Criterion.counted(self, **inputs)

    def forward(
        self,
        student: Float[Tensor, "... width"],
        labels: Int[Tensor, "..."],
        student_head: Any,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the tokens that have a label, in nats.

        Args:
            student: what the student's head is given.
            labels: what each position is to say; -100 for nothing.
            student_head: the student's head.
            mask: which of them count; all by default.

        Raises:
            ValueError: for tensors that do not fit, labels that the head has no class for, and
                within [`SampleWeighted`][].
        """
        refuse_weights(self, "HardLabel")
        _, own = tokens_that_count(student, mask, labels, 1.0, self.shift_labels)
        assert own is not None
        labels, classes = own, len(parts(student_head)[0])
        _check_labels(labels, classes)
        counted = labels != UNLABELLED
        if not self.fused:
            return masked_mean(fused_linear_cross_entropy(student, labels, student_head), counted)
        loss, _ = mean_over_chunks(
            student,
            student_head,
            classes,
            counted,
            lambda select, _: Labels(select(labels)),
            chunk_mb=self.chunk_mb,
        )
        return loss

    def extra_repr(self) -> str:  # noqa: D102
        return f"shift_labels={self.shift_labels}, chunk_mb={self.chunk_mb}, fused={self.fused}"


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.device.type != "cpu":
        # Elsewhere torch's own assertion fires, later: looking would wait for the device.
        return
    outside = labels[(labels != UNLABELLED) & ((labels < 0) | (labels >= classes))]
    if len(outside):
        raise ValueError(
            f"Label {int(outside[0])} does not exist: the student's head has {classes} classes, "
            f"numbered 0 to {classes - 1}, and {UNLABELLED} means unlabelled. Is the tokenizer the "
            "student's own?"
        )
