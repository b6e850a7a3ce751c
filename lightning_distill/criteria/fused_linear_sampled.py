"""Fused linear sampled: a student and classes drawn from the teacher, without logits in memory."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, masked_mean
from ._fused_criterion import FusedCriterion, mean_over_chunks, refuse_weights, tokens_that_count
from ._fused_linear import log_sum_and_softmax, Target
from ._heads import whole_logits
from ._sparse_answer import check_answer, of_tokens, shared_classes, SparseAnswer, within

# Logits of a live teacher that are copied at once.
TILE = 2**22


def fused_linear_sampled(
    student: Float[Tensor, "... width"],
    teacher: SparseAnswer,
    student_head: Any,
    draws: int = 64,
    temperature: float = 1.0,
    shared_vocab: int | None = None,
) -> Float[Tensor, "..."]:
    """The cross-entropy of each token, in nats; the whole logits of the student are made.

    The plain way to what [`FusedLinearSampled`][] finds in chunks; arguments are as there.
    """
    check_answer(teacher, "sampled", temperature, student)
    shared = shared_classes(teacher, student_head, shared_vocab)
    log_q = (whole_logits(student, student_head, shared) / temperature).log_softmax(-1)
    classes, shares = _drawn(teacher, draws, temperature, shared)
    return _cross_entropy(shares, log_q.gather(-1, classes)) * temperature**2


class FusedLinearSampled(FusedCriterion):
    r"""Mean cross-entropy of the student under classes that were drawn from the teacher.

    $$-\tau^2 \sum_c \hat p_c \log \sigma(W h / \tau)_c, \quad \hat p_c = n_c / n$$

    with $n_c$ of $n$ draws from $\sigma(t / \tau)$. Value and gradient, $\tau(q - \hat p)$ in the
    student's logits, are on average those of the whole distribution, which is not so for its
    largest classes; the value differs from the KL divergence by the teacher's entropy. Of the
    student the logits are made chunk by chunk, as by [`FusedLinearDivergence`][].

    `teacher` is what `teacher.sparse:logits` reads: from a cache made with `job.logits=sampled` the
    draws that it keeps, of which whole logits are never made, and of a live teacher its logits,
    from which classes are drawn anew. The temperature of a cache (`job.temperature`) must be this
    one. Draws of classes that the student's head lacks, as padding, are left out.

    Args:
        draws: how many, from a live teacher; a cache has its own number.
        temperature: of both distributions; a number.
        label_weight: of the cross-entropy with the labels in the same pass.
        shared_vocab: how many ids both models share; those that both have by default.
        shift_labels: labels are the input's own tokens, as Hugging Face's collators give them, so
            that position $i$ is to say label $i + 1$.
        chunk_mb: MiB for the logits of a chunk; 36 on a CPU and 1024 elsewhere by default.
        fused: false computes the same from the student's whole logits with plain autograd.

    References:
        Anshumann et al., *Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs*,
        2025, https://arxiv.org/abs/2503.16870.
    """

    encoding = "sampled"

    def __init__(
        self,
        draws: int = 64,
        temperature: float = 1.0,
        label_weight: float = 0.0,
        shared_vocab: int | None = None,
        shift_labels: bool = False,
        chunk_mb: float | None = None,
        fused: bool = True,
    ):
        super().__init__(label_weight, shared_vocab, shift_labels, chunk_mb, fused)
        check_positive("temperature", temperature)
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise ValueError(f"`draws` must be a whole number of at least 1, got {draws!r}.")
        self.draws, self.temperature = draws, float(temperature)
        self.encoding_temperature = self.temperature

    def forward(
        self,
        student: Float[Tensor, "... width"],
        teacher: Float[Tensor, "... classes"] | Mapping[str, Any],
        student_head: Any,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
        labels: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the tokens that count.

        Args:
            student: what the student's head is given.
            teacher: logits, or a dict of `classes` and `counts` `(..., n)`, as
                [`Sampled`][lightning_distill.cache.Sampled] keeps them, and where they are not the
                student's, `temperature` and `vocabulary`.
            student_head: the student's head.
            mask: which tokens count; those with a label (not -100) by default, all if there are no
                labels.
            labels: what each position is to say; needed for `label_weight`.

        Raises:
            ValueError: for tensors that do not fit, answers at another temperature or of another
                encoding, and within [`SampleWeighted`][].
        """
        refuse_weights(self, "SoftCrossEntropy")
        check_answer(teacher, "sampled", self.temperature, student)
        shared = shared_classes(teacher, student_head, self.shared_vocab)
        counted, labels = tokens_that_count(
            student, mask, labels, self.label_weight, self.shift_labels
        )
        if not self.fused:
            values = fused_linear_sampled(
                student, teacher, student_head, self.draws, self.temperature, self.shared_vocab
            )
            return self.plus_labels(
                masked_mean(values, counted),
                lambda: whole_logits(student, student_head, shared),
                labels,
            )

        def target(select: Any, _: Any) -> Target:
            return _Sampled(of_tokens(teacher, select), self.draws, self.temperature, shared)

        loss, _ = mean_over_chunks(
            student,
            student_head,
            shared,
            counted,
            target,
            labels,
            self.label_weight,
            self.chunk_mb,
        )
        return loss

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"draws={self.draws}, temperature={self.temperature}, "
            f"label_weight={self.label_weight}, shared_vocab={self.shared_vocab}, "
            f"shift_labels={self.shift_labels}, chunk_mb={self.chunk_mb}, fused={self.fused}"
        )


class _Sampled(Target):
    """The drawn classes of every token that counts."""

    def __init__(self, answer: SparseAnswer, draws: int, temperature: float, shared: int):
        self.temperature = temperature
        # Once: what a second backward computes again is of the same draws.
        self.classes, self.shares = _drawn(answer, draws, temperature, shared)

    def compare(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor]:
        rows = slice(start, start + len(logits))
        classes, shares = self.classes[rows], self.shares[rows].to(logits.dtype)
        if self.temperature != 1:
            logits = logits / self.temperature
        log_sum, gradient = log_sum_and_softmax(logits)
        values = _cross_entropy(shares, logits.gather(-1, classes) - log_sum.unsqueeze(-1))
        # 1, or 0 for a token of which no draw is left.
        whole = shares.sum(-1, keepdim=True)
        gradient = gradient.mul_(whole).scatter_add_(-1, classes, -shares)
        if self.temperature != 1:
            values, gradient = values * self.temperature**2, gradient.mul_(self.temperature)
        return values, gradient


def _cross_entropy(shares: Tensor, log_q: Tensor) -> Tensor:
    """What was not drawn adds nothing, whatever the student says of it."""
    return -(shares * log_q).where(shares > 0, 0.0).sum(-1)


def _drawn(
    teacher: SparseAnswer, draws: int, temperature: float, shared: int
) -> tuple[Tensor, Tensor]:
    """Classes and their shares of the draws, each `(tokens, draws)`."""
    if isinstance(teacher, Mapping):
        classes, inside = within(teacher["classes"], shared)
        counts = teacher["counts"].masked_fill(~inside, 0).float()
        return classes, counts / counts.sum(-1, keepdim=True).clamp(min=1)
    logits = teacher.detach()[..., :shared]
    # Some tokens at a time, as no logits are to be copied whole.
    parts = logits.reshape(-1, shared).split(max(TILE // shared, 1))
    drawn = [
        torch.multinomial((in_full_precision(own)[0] / temperature).softmax(-1), draws, True)
        for own in parts
    ]
    classes = torch.cat(drawn).reshape(*logits.shape[:-1], draws)
    return classes, torch.full(classes.shape, 1 / draws, device=classes.device)
