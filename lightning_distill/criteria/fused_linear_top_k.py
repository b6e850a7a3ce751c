"""Fused linear top-k: the teacher's largest logits, and a student that makes none in memory."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, masked_mean, mean_of
from ._fused_criterion import FusedCriterion, mean_over_chunks, refuse_weights, tokens_that_count
from ._fused_linear import log_sum_and_softmax, Target
from ._heads import whole_logits
from ._sparse_answer import check_answer, of_tokens, shared_classes, SparseAnswer, within


def fused_linear_top_k(
    student: Float[Tensor, "... width"],
    teacher: SparseAnswer,
    student_head: Any,
    k: int = 64,
    temperature: float = 1.0,
    shared_vocab: int | None = None,
) -> Float[Tensor, "..."]:
    """The divergence of each token, in nats; the whole logits of the student are made.

    The plain way to what [`FusedLinearTopK`][] finds in chunks; arguments are as there.
    """
    check_answer(teacher, "top_k", temperature, student)
    shared = shared_classes(teacher, student_head, shared_vocab)
    logits = whole_logits(student, student_head, shared) / temperature
    log_p, log_tail, classes, inside = _largest(teacher, k, temperature, shared)
    total = logits.logsumexp(-1, keepdim=True)
    others = logits.scatter(-1, classes, torch.finfo(logits.dtype).min)
    log_rest = others.logsumexp(-1, keepdim=True)
    if inside is not None:
        # Without any class of the student among the k all of its logits are the tail.
        log_rest = log_rest.where(inside.any(-1, keepdim=True), total)
    log_q = torch.cat([logits.gather(-1, classes), log_rest], -1) - total
    return _kl(torch.cat([log_p, log_tail.unsqueeze(-1)], -1), log_q) * temperature**2


class FusedLinearTopK(FusedCriterion):
    r"""Mean of the forward KL on the teacher's `k` largest classes and all others as one.

    $$\tau^2 \Big( \sum_{i \in K} p_i \log\frac{p_i}{q_i} + (1 - P) \log\frac{1 - P}{1 - Q} \Big),
    \quad P = \sum_{i \in K} p_i, \; Q = \sum_{i \in K} q_i$$

    A lower bound of the whole KL, and equal to it where student and teacher agree within the tail.
    The tail keeps $Q$ from growing to 1, which the `k` classes alone, made a distribution, would
    not. Of the student the logits are made chunk by chunk, as by [`FusedLinearDivergence`][];
    the gradient in them is $\tau(q_j - p_j)$ in $K$ and $\tau q_j (P - Q)/(1 - Q)$ outside.

    `teacher` is what `teacher.sparse:logits` reads: from a cache made with `job.logits=top_k` the
    fields that it keeps, of which whole logits are never made, and of a live teacher its logits, of
    which the `k` largest are taken. The tail of a cache is known at the temperature that it was
    made with (`job.temperature`), and that must be this one. Classes among the `k` that the
    student's head lacks, as padding, are left out; in a cached tail they cannot be told apart.

    The module logs $P$, the share of the teacher's probability that the `k` classes hold, as
    `train/NAME_retained_mass`.

    Args:
        k: how many classes of a live teacher; a cache has its own number.
        temperature: of both distributions; a number.
        label_weight: of the cross-entropy with the labels in the same pass.
        shared_vocab: how many ids both models share; those that both have by default.
        shift_labels: labels are the input's own tokens, as Hugging Face's collators give them, so
            that position $i$ is to say label $i + 1$.
        chunk_mb: MiB for the logits of a chunk; 36 on a CPU and 1024 elsewhere by default.
        fused: false computes the same from the student's whole logits with plain autograd.

    References:
        Anshumann et al., *Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs*,
        2025, https://arxiv.org/abs/2503.16870, on what the largest classes alone leave out.
    """

    encoding = "top_k"

    def __init__(
        self,
        k: int = 64,
        temperature: float = 1.0,
        label_weight: float = 0.0,
        shared_vocab: int | None = None,
        shift_labels: bool = False,
        chunk_mb: float | None = None,
        fused: bool = True,
    ):
        super().__init__(label_weight, shared_vocab, shift_labels, chunk_mb, fused)
        check_positive("temperature", temperature)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"`k` must be a whole number of at least 1, got {k!r}.")
        self.k, self.temperature = k, float(temperature)
        self.encoding_temperature = self.temperature
        self._retained: Tensor | None = None

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
            teacher: logits, or a dict of `values` and `classes` `(..., k)` and `rest` `(..., 1)`,
                the log-sum-exp of all other logits as [`TopK`][lightning_distill.cache.TopK]
                keeps it, and where they are not the student's, `temperature` and `vocabulary`.
            student_head: the student's head.
            mask: which tokens count; those with a label (not -100) by default, all if there are no
                labels.
            labels: what each position is to say; needed for `label_weight`.

        Raises:
            ValueError: for tensors that do not fit, answers at another temperature or of another
                encoding, and within [`SampleWeighted`][].
        """
        refuse_weights(self, "SoftTarget")
        check_answer(teacher, "top_k", self.temperature, student)
        shared = shared_classes(teacher, student_head, self.shared_vocab)
        counted, labels = tokens_that_count(
            student, mask, labels, self.label_weight, self.shift_labels
        )
        if not self.fused:
            values = fused_linear_top_k(
                student, teacher, student_head, self.k, self.temperature, self.shared_vocab
            )
            _, log_tail, _, _ = _largest(teacher, self.k, self.temperature, shared)
            self._retained = masked_mean(-torch.expm1(log_tail), counted)
            return self.plus_labels(
                masked_mean(values, counted),
                lambda: whole_logits(student, student_head, shared),
                labels,
            )
        targets = []

        def target(select: Any, _: Any) -> Target:
            own = of_tokens(teacher, select)
            targets.append(_TopK(own, self.k, self.temperature, shared))
            return targets[0]

        loss, values = mean_over_chunks(
            student,
            student_head,
            shared,
            counted,
            target,
            labels,
            self.label_weight,
            self.chunk_mb,
        )
        count = torch.tensor(len(values), device=values.device)
        self._retained = mean_of(targets[0].retained, count)
        return loss

    def logged(self) -> dict[str, Tensor]:
        """The mean of the share that the `k` classes hold, of the last call."""
        return {} if self._retained is None else {"retained_mass": self._retained}

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"k={self.k}, temperature={self.temperature}, label_weight={self.label_weight}, "
            f"shared_vocab={self.shared_vocab}, shift_labels={self.shift_labels}, "
            f"chunk_mb={self.chunk_mb}, fused={self.fused}"
        )


class _TopK(Target):
    """The largest classes of every token that counts."""

    def __init__(self, answer: SparseAnswer, k: int, temperature: float, shared: int):
        self.answer, self.k, self.temperature, self.shared = answer, k, temperature, shared
        self.retained = torch.zeros(())

    def begin(self, rows: int) -> None:
        self.retained = torch.zeros(())

    def fill(self, start: int, stop: int) -> None:
        """The probabilities of a chunk; of live logits the largest."""
        self._start = start
        if isinstance(self.answer, Mapping):
            fields = ("values", "classes", "rest")
            own: SparseAnswer = {name: self.answer[name][start:stop] for name in fields}
        else:
            own = self.answer[start:stop]
        self._chunk = _largest(own, self.k, self.temperature, self.shared)
        self.retained = self.retained.to(self._chunk[1]) - torch.expm1(self._chunk[1]).sum()

    def compare(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor]:
        rows = slice(start - self._start, start - self._start + len(logits))
        log_p, log_tail, classes, inside = (None if x is None else x[rows] for x in self._chunk)
        assert log_p is not None and log_tail is not None and classes is not None
        if self.temperature != 1:
            logits = logits / self.temperature
        largest = logits.gather(-1, classes)
        others = logits.scatter(-1, classes, torch.finfo(logits.dtype).min)
        # Of the tail by itself, in which nothing is lost as Q comes near 1.
        log_rest, gradient = log_sum_and_softmax(others)
        if inside is not None:
            # Where none is left the tail is all of both, and nothing is off.
            largest = largest.masked_fill(~inside, -torch.inf)
        total = torch.logaddexp(largest.logsumexp(-1), log_rest)
        log_q, log_rest = largest - total.unsqueeze(-1), log_rest - total
        of_p = torch.cat([log_p, log_tail.unsqueeze(-1)], -1)
        of_q = torch.cat([log_q, log_rest.unsqueeze(-1)], -1)
        values, off = _kl(of_p, of_q), of_q.exp() - of_p.exp()
        # 1 - Q less 1 - P is spread over the tail as the student spreads it.
        gradient = gradient.mul_(off[..., -1:]).scatter_add_(-1, classes, off[..., :-1])
        if self.temperature != 1:
            values, gradient = values * self.temperature**2, gradient.mul_(self.temperature)
        return values, gradient


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """What has no probability adds nothing, whatever the student says of it."""
    p = log_p.exp()
    return (p * (log_p - log_q)).where(p > 0, 0.0).sum(-1)


def _largest(
    teacher: SparseAnswer, k: int, temperature: float, shared: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Logarithms of p of the `k` classes and of the tail, the classes, and which are compared.

    The last is `None` where all are.
    """
    inside = None
    if isinstance(teacher, Mapping):
        values, rest, classes = teacher["values"], teacher["rest"].squeeze(-1), teacher["classes"]
        values, rest = (x / temperature for x in in_full_precision(values, rest))
        if teacher.get("vocabulary", shared + 1) > shared:
            classes, inside = within(classes, shared)
            values = values.masked_fill(~inside, -torch.inf)
        else:
            classes = classes.long()
    else:
        (logits,) = in_full_precision(teacher.detach()[..., :shared])
        if k >= shared:
            raise ValueError(
                f"`k` is {k}, which leaves no tail of {shared} classes; compare them all, with "
                "FusedLinearDivergence."
            )
        logits = logits / temperature
        values, classes = logits.topk(k, dim=-1)
        rest = logits.scatter(-1, classes, -torch.inf).logsumexp(-1)
    total = torch.logaddexp(values.logsumexp(-1), rest)
    return values - total.unsqueeze(-1), rest - total, classes, inside
