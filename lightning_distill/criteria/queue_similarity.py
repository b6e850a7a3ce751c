"""Similarities to a queue of teacher embeddings: the student sees the neighbours as the teacher."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import (
    check_choice,
    check_positive,
    in_full_precision,
    masked_mean,
    Number,
    positive,
    without_autocast,
)
from ._gather import gather_rows
from ._parts import apply, fitted, learns, prepared
from ._samples import counted_samples, sample_vectors
from .criterion import Criterion

VARIANTS = ("seed", "compress", "lightly")


def queue_similarity(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "entries dim"],
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
    own: bool = True,
) -> Float[Tensor, " batch"]:
    r"""KL between the similarities of a sample to all in the queue, per sample, in nats.

    $$\mathrm{KL}\big( \sigma(D t / \tau_t) \,\Vert\, \sigma(D s / \tau_s) \big)$$

    where the rows of $D$ are the queue and, with `own`, the sample's own $t$; all of length 1.
    The papers write cross-entropy (SEED) and KL (CompRess), which have the same gradient.

    References:
        Fang et al., *SEED: Self-supervised Distillation for Visual Representation*, 2021,
        https://arxiv.org/abs/2101.04731, section 3.
        Koohpayegani, Tejankar and Pirsiavash, *CompRess: Self-Supervised Learning by Compressing
        Representations*, 2020, https://arxiv.org/abs/2010.14713.
    """
    check_positive("student_temperature", student_temperature)
    check_positive("teacher_temperature", teacher_temperature)
    student, teacher, queue = in_full_precision(student, teacher, queue)
    similarities = []
    with without_autocast(student):
        for x, temperature in ((student, student_temperature), (teacher, teacher_temperature)):
            x = x / temperature
            scores = x @ queue.T
            if own:
                scores = torch.cat([(x * teacher).sum(dim=1, keepdim=True), scores], dim=1)
            similarities.append(scores)
    log_q, p = F.log_softmax(similarities[0], dim=1), F.softmax(similarities[1], dim=1)
    # Of the low temperature most of p is 0 or nearly so, whose logarithm need not be made.
    return F.kl_div(log_q, p, reduction="none").sum(dim=1)


class QueueSimilarity(Criterion):
    """Mean of [`queue_similarity`][] over the samples that count, with a queue of earlier batches.

    A trained linear map brings the student's features to the teacher's width. The queue is a
    buffer, in the checkpoint; it takes the teacher's embeddings of all processes, in training only,
    and while it is not full only the entries that it has are used; while it is empty, the batch
    stands in for it.

    Args:
        size: of the queue.
        student_temperature: of the student's similarities; a positive number or a schedule.
        teacher_temperature: of the teacher's.
        variant: what samples are compared with. `seed`: the queue, and their own teacher embedding
            (0.2 and 0.01, 65,536; the authors' program takes 1e-4 for the teacher). `compress`: the
            queue alone (0.04 for both, 128,000; there the student may have a queue of its own, and
            no linear map). `lightly`: the queue with this batch already in it (0.07 for both, up to
            8,192 in LightlyTrain, where each process has another queue).
    """

    across_samples = True

    projector: nn.Module | None
    queue: Tensor
    seen: Tensor

    def __init__(
        self,
        size: int = 65536,
        student_temperature: Number = 0.2,
        teacher_temperature: Number = 0.01,
        variant: str = "seed",
    ):
        super().__init__()
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        check_positive("student_temperature", student_temperature)
        check_positive("teacher_temperature", teacher_temperature)
        check_choice("variant", variant, VARIANTS)
        self.size, self.variant = size, variant
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.register_module("projector", None)
        self.register_buffer("queue", None)
        self.register_buffer("seen", None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> None:
        """Build the linear map and an empty queue for features as wide as these."""
        if self.projector is not None:
            return
        (like,) = in_full_precision(student)
        self.projector = fitted(self, nn.Linear(student.shape[1], teacher.shape[1]), student)
        self.queue = like.new_zeros(self.size, teacher.shape[1])
        self.seen = torch.zeros((), dtype=torch.long, device=like.device)

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats.

        Features are vectors (batch, features), or maps, which are averaged over the places.
        """
        prepared(self, self.projector)
        assert self.projector is not None
        student, teacher = sample_vectors(student, "student"), sample_vectors(teacher, "teacher")
        student, teacher = counted_samples(mask, student, teacher)
        student = F.normalize(apply(self.projector, student), dim=1)
        teacher = F.normalize(teacher.detach(), dim=1).to(student.dtype)
        first = self.variant == "lightly"
        if first and learns(self):
            self._enter(teacher)
        # A copy, as the queue moves on before gradients are taken.
        entries = self.queue[: min(int(self.seen), self.size)].to(student.dtype, copy=True)
        empty = len(entries) == 0
        if empty:
            entries = gather_rows(teacher) if learns(self) else teacher
        elif first and not learns(self):
            entries = torch.cat([entries, teacher])
        values = queue_similarity(
            student,
            teacher,
            entries,
            positive("student_temperature", self.student_temperature),
            positive("teacher_temperature", self.teacher_temperature),
            own=self.variant == "seed" and not empty,
        )
        if not first and learns(self):
            self._enter(teacher)
        return masked_mean(values)

    @torch.no_grad()
    def _enter(self, teacher: Tensor) -> None:
        entries = gather_rows(teacher)
        places = (self.seen + torch.arange(len(entries), device=entries.device)) % self.size
        # Of more entries than the queue has places, the last.
        self.queue[places[-self.size :]] = entries[-self.size :].to(self.queue.dtype)
        self.seen += len(entries)

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"size={self.size}, student_temperature={self.student_temperature}, "
            f"teacher_temperature={self.teacher_temperature}, variant={self.variant!r}"
        )
