"""Contrastive representation distillation: the same sample in both models, among many others."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import (
    check_positive,
    check_share,
    in_full_precision,
    masked_mean,
    UNLABELLED,
    without_autocast,
)
from ._gather import gather_rows
from ._parts import apply, fitted, learns, prepared
from ._samples import counted_samples, sample_vectors
from .criterion import both, Criterion


def crd(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    others: Float[Tensor, "others dim"],
    times: Float[Tensor, "batch others"],
    level: Float[Tensor, ""] | float,
    temperature: float = 0.07,
) -> Float[Tensor, " batch"]:
    r"""Cross-entropy of telling one's own teacher embedding from those of others, per sample.

    $$-\log h(s, t) - \sum_k n_k \log \big( 1 - h(s, o_k) \big), \quad
    h(a, b) = \frac{e^{a^\top b / \tau}}{e^{a^\top b / \tau} + e^c}$$

    All embeddings have length 1. The other direction is the same with the roles exchanged.

    Args:
        student: embeddings of the samples.
        teacher: those of the same samples by the teacher.
        others: embeddings by the teacher of other samples.
        times: $n$, how often each of them is drawn for each sample; need not be whole.
        level: $c$, the logarithm of $K Z / M$ for $K$ draws out of $M$ samples.
        temperature: $\tau$.

    References:
        Tian, Krishnan and Isola, *Contrastive Representation Distillation*, 2020,
        https://arxiv.org/abs/1910.10699, section 3.
    """
    check_positive("temperature", temperature)
    own, scores = _scores(student, teacher, others, temperature)
    against = (times * F.softplus(scores - level)).sum(dim=1)
    return F.softplus(level - own) + against


def _scores(a: Tensor, own: Tensor, others: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    a, own, others = in_full_precision(a, own, others)
    with without_autocast(a):
        return (a * own).sum(dim=1) / temperature, a @ others.T / temperature


class CRD(Criterion):
    r"""Mean of [`crd`][] in both directions over the samples that count, with memory banks.

    Two trained linear maps embed both models' features. The banks hold an embedding of every
    training sample by each model: the own one and those of the others are read from there, and
    follow the models with a momentum. They are buffers, in the checkpoint and equal on every rank,
    and move in training only. So does $Z$, which the first batch settles: it is $M$ times the mean
    of $e^{a^\top b / \tau}$ over its pairs, as in the authors' program.

    That program draws $K$ others for each sample. Here one draw serves the batch, with less memory
    by a factor of the batch size; those that are the sample itself or of its class do not count,
    and the rest count for $K$, so that the expectation is the same. Where the bank has no more
    than $K$ samples, all are taken, which is that expectation itself.

    In evaluation, samples are others than those in the bank: the own embedding then is the other
    model's for this very sample.

    Args:
        samples: $M$, how many the training data has; `num_rows` of the configuration.
        size: of the embeddings.
        negatives: $K$, how many others each sample is compared with.
        temperature: $\tau$ of the scores.
        momentum: share of a bank's entry that stays when its sample is seen again.
    """

    across_samples = True

    student_embedding: nn.Module | None
    teacher_embedding: nn.Module | None
    student_bank: Tensor
    teacher_bank: Tensor
    classes: Tensor
    levels: Tensor

    def __init__(
        self,
        samples: int,
        size: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ):
        super().__init__()
        for name, value in (("samples", samples), ("size", size), ("negatives", negatives)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        check_positive("temperature", temperature)
        check_share("momentum", momentum)
        self.samples, self.size, self.negatives = samples, size, negatives
        self.temperature, self.momentum = temperature, momentum
        for name in ("student_embedding", "teacher_embedding"):
            self.register_module(name, None)
        for name in ("student_bank", "teacher_bank", "classes", "levels"):
            self.register_buffer(name, None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        rows: Int[Tensor, " batch"],
        labels: Int[Tensor, " batch"] | None = None,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> None:
        """Build embeddings for features as wide as these, and fill the banks at random."""
        if self.student_embedding is not None:
            return
        (like,) = in_full_precision(student)
        self.student_embedding, self.teacher_embedding = (
            fitted(self, nn.Linear(x.shape[1], self.size), student) for x in (student, teacher)
        )
        for name in ("student_bank", "teacher_bank"):
            entries = torch.randn(self.samples, self.size).to(like)
            setattr(self, name, F.normalize(entries, dim=1))
        self.classes = torch.full((self.samples,), UNLABELLED, device=like.device)
        self.levels = like.new_full((2,), torch.nan)

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        rows: Int[Tensor, " batch"],
        labels: Int[Tensor, " batch"] | None = None,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats.

        Features are vectors (batch, features), or maps, which are averaged over the places. `rows`
        says which sample of the training data each is, negative for padding; with `labels` (-100
        for none), only samples of other classes count as others.
        """
        prepared(self, self.student_embedding)
        assert self.student_embedding is not None and self.teacher_embedding is not None
        student, teacher = sample_vectors(student, "student"), sample_vectors(teacher, "teacher")
        labels = torch.full_like(rows, UNLABELLED) if labels is None else labels
        student, teacher, rows, labels = counted_samples(mask, student, teacher, rows, labels)
        student, teacher, rows, labels = counted_samples(rows >= 0, student, teacher, rows, labels)
        self._check_data(rows, labels)
        student = F.normalize(apply(self.student_embedding, student), dim=1)
        teacher = F.normalize(apply(self.teacher_embedding, teacher), dim=1)
        chosen = self._draw(rows.device)
        times = self._times(chosen, rows, labels).to(student.dtype)
        values = []
        for i, (anchor, bank, other) in enumerate(
            ((student, self.teacher_bank, teacher), (teacher, self.student_bank, student))
        ):
            own = (bank[rows] if self.training else other).to(anchor.dtype)
            # A copy, as the bank moves before gradients are taken.
            others = bank[chosen].to(anchor.dtype)
            level = self._level(i, anchor, own, others, times)
            values.append(crd(anchor, own, others, times, level, self.temperature))
        if learns(self):
            self._remember(student, teacher, rows, labels)
        return masked_mean(values[0] + values[1])

    def counted(self, **inputs: Any) -> Tensor | None:
        """The samples that are rows of the training data and true in `mask`, labelled or not."""
        rows, mask = inputs.get("rows"), inputs.get("mask")
        own = None if rows is None else rows >= 0
        return own if mask is None else both(own, mask)

    def _check_data(self, rows: Tensor, labels: Tensor) -> None:
        if labels.shape != rows.shape or labels.is_floating_point():
            raise ValueError(
                f"`labels` must be one class per sample, shape {tuple(rows.shape)}, got "
                f"{tuple(labels.shape)} of {labels.dtype}. For other tasks leave them out of the "
                "term's inputs."
            )
        if self.training and len(rows) and int(rows.max()) >= self.samples:
            raise ValueError(
                f"`rows` must lie below samples={self.samples}, got {int(rows.max())}. Set "
                "`samples` to the number of rows of the training data."
            )

    def _draw(self, device: torch.device) -> Tensor:
        if self.training and self.samples > self.negatives:
            return torch.randint(self.samples, (self.negatives,), device=device)
        # All, or in evaluation as many evenly spaced ones, so that the value is the same each time.
        count = min(self.samples, self.negatives)
        return torch.arange(count, device=device) * self.samples // count

    def _times(self, chosen: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        same = (self.classes[chosen] == labels[:, None]) & (labels != UNLABELLED)[:, None]
        if self.training:
            same |= chosen == rows[:, None]
        count = (~same).sum(dim=1, keepdim=True).clamp(min=1)
        return ~same * (self.negatives / count)

    @torch.no_grad()
    def _estimate(self, anchor: Tensor, own: Tensor, others: Tensor, times: Tensor) -> Tensor:
        first, scores = _scores(anchor, own, others, self.temperature)
        weights = F.pad(times, (1, 0), value=1.0)
        scores = torch.cat([first[:, None], scores], dim=1) + weights.log()
        return scores.logsumexp(dim=1) - weights.sum(dim=1).log()

    def _level(self, i: int, anchor: Tensor, own: Tensor, others: Tensor, times: Tensor) -> Tensor:
        if self.levels[i].isnan():
            means = self._estimate(anchor, own, others, times)
            means = gather_rows(means) if learns(self) else means
            level = means.logsumexp(dim=0) - math.log(max(len(means), 1) / self.negatives)
            if not learns(self) or not len(means):
                return level
            self.levels[i] = level
        return self.levels[i].to(anchor.dtype)

    @torch.no_grad()
    def _remember(self, student: Tensor, teacher: Tensor, rows: Tensor, labels: Tensor) -> None:
        embeddings = gather_rows(torch.cat([student, teacher], dim=1))
        rows, labels = gather_rows(torch.stack([rows, labels], dim=1)).unbind(dim=1)
        self.classes[rows] = labels
        # The mean where a sample comes twice: which one is written last is left open by torch.
        rows, places, counts = rows.unique(return_inverse=True, return_counts=True)
        sums = embeddings.new_zeros(len(rows), 2 * self.size).index_add_(0, places, embeddings)
        for bank, new in zip(
            (self.student_bank, self.teacher_bank),
            (sums / counts[:, None]).split(self.size, dim=1),
            strict=True,
        ):
            entries = torch.lerp(new, bank[rows].to(new.dtype), self.momentum)
            bank[rows] = F.normalize(entries, dim=1).to(bank.dtype)

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"samples={self.samples}, size={self.size}, negatives={self.negatives}, "
            f"temperature={self.temperature}, momentum={self.momentum}"
        )
