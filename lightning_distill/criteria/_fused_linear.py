"""Logits of heads, a few tokens at a time, and what is asked of them; gradient in the forward."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.torch_version import TorchVersion

from ._check import in_full_precision
from ._log_probabilities import WithGradient
from .hard_label import hard_label

MIB = 2**20
# On a CPU what one product or one softmax touches must fit the cache of a core: a product with a
# large vocabulary takes half as long in blocks. Elsewhere a launch costs more than the cache saves.
CACHE = MIB
# In float16, gradients in the logits are kept so many times larger.
RAISED = 64.0
# Products of float16 on CUDA that are returned in float32 came with this version.
SUMS_WIDER = TorchVersion(torch.__version__) >= (2, 8)


@dataclass(frozen=True)
class Side:
    r"""Hidden states `(tokens, width)` of one model, and the head that makes logits of them.

    The logits are $c \tanh(z / c)$ with $z = k (W h + b)$; `scale` is $k$, `softcap` is $c$.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None

    def fill(self, logits: Tensor, start: int) -> None:
        """Write W h + b of the tokens from `start` on into a buffer (tokens, vocabulary)."""
        hidden = self.hidden[start : start + len(logits)]
        for block in _blocks(self.weight):
            weight = self.weight[block].T
            if self.bias is None:
                torch.mm(hidden, weight, out=logits[:, block])
            else:
                torch.addmm(self.bias[block], hidden, weight, out=logits[:, block])

    def finished(self, logits: Tensor) -> tuple[Tensor, Tensor | float]:
        """Logits from W h + b, which may be overwritten, and their slope in it."""
        (logits,) = in_full_precision(logits)
        if self.scale != 1:
            logits = logits.mul_(self.scale)
        if self.softcap is None:
            return logits, self.scale
        bent = logits.div_(self.softcap).tanh_()
        slope = bent.square().neg_().add_(1).mul_(self.scale)
        return bent.mul_(self.softcap), slope


class Target(ABC):
    """What the student's logits are compared with, of every token that counts."""

    # Of logits that it makes itself, per token.
    row_bytes = 0

    def begin(self, rows: int) -> None:  # noqa: B027
        """Make room for chunks of so many tokens; not all need any."""

    def fill(self, start: int, stop: int) -> None:  # noqa: B027
        """Make what the tokens of a chunk need, if anything; they are compared next."""

    @abstractmethod
    def compare(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Values of the tokens from `start` on, and their gradient in these logits, which stay."""


class TeacherLogits(Target):
    """The logits of a teacher's head, and a divergence from them.

    Args:
        side: of the tokens that count; as many classes as the student's.
        divergence: from logits of student and teacher to values and their gradient.
    """

    def __init__(self, side: Side, divergence: WithGradient):
        self.side, self.divergence = side, divergence
        self.row_bytes = len(side.weight) * side.weight.element_size()

    def begin(self, rows: int) -> None:
        """Make room for the logits of a chunk."""
        self._buffer = self.side.weight.new_empty(rows, len(self.side.weight))

    def fill(self, start: int, stop: int) -> None:
        """Make the logits of a chunk."""
        self._start = start
        self.side.fill(self._buffer[: stop - start], start)

    def compare(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The divergence of a few tokens of the chunk."""
        own = self._buffer[start - self._start :][: len(logits)]
        return self.divergence(logits, self.side.finished(own)[0])


class Labels(Target):
    """The label of each token, which all have: cross-entropy."""

    def __init__(self, labels: Int[Tensor, " tokens"]):
        self.labels = labels

    def compare(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Their cross-entropy."""
        labels = self.labels[start : start + len(logits)].long().unsqueeze(-1)
        log_sum, gradient = log_sum_and_softmax(logits)
        one = torch.ones_like(labels, dtype=gradient.dtype)
        values = log_sum - logits.gather(-1, labels).squeeze(-1)
        return values, gradient.scatter_add_(-1, labels, -one)


def log_sum_and_softmax(
    logits: Float[Tensor, "tokens classes"],
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens classes"]]:
    """Log-sum-exp and softmax with one exp: at the maximum, softmax is one over its sum."""
    softmax = logits.softmax(-1)
    return logits.amax(-1) - softmax.amax(-1).log(), softmax


@dataclass(frozen=True)
class Work:
    """What is to be computed, apart from the tensors that autograd watches.

    Attributes:
        student: of the tokens that count; the vocabulary is that which both share.
        target: what it is compared with, of the same tokens.
        labels: `(tokens,)` or `None`.
        label_weight: what the cross-entropy counts in the gradient.
        chunk_bytes: how large the logits of both may be together.
        hidden, weight, bias: whether their gradient is wanted.
        vocabulary: of the student's whole head, padding included.
    """

    student: Side
    target: Target
    labels: Tensor | None
    label_weight: Tensor | float
    chunk_bytes: int
    hidden: bool
    weight: bool
    bias: bool
    vocabulary: int

    @property
    def raised(self) -> float:
        """What gradients in the logits are multiplied by while they are kept.

        Of a large vocabulary they are so small that float16 has few digits left for them, and the
        loss is scaled later.
        """
        return RAISED if self.student.weight.dtype == torch.float16 else 1.0

    @property
    def differentiated(self) -> bool:
        """Whether any gradient is wanted."""
        return self.hidden or self.weight or self.bias

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First and last of the tokens whose logits exist together, in equal parts."""
        tokens, weight = len(self.student.hidden), self.student.weight
        row = len(weight) * weight.element_size() + self.target.row_bytes
        rows = max(self.chunk_bytes // row, 1)
        count = -(-tokens // rows)
        bounds = [tokens * i // max(count, 1) for i in range(count + 1)]
        return pairwise(bounds)


@dataclass
class Found:
    """Values per token, and the gradients of their sum."""

    values: Tensor
    label_values: Tensor
    hidden: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def gradients(self) -> tuple[Tensor | None, ...]:
        """In the order of the function's arguments."""
        return self.hidden, self.weight, self.bias


def compute(work: Work) -> Found:
    """Values of every token and the gradients that are wanted."""
    student, target = work.student, work.target
    tokens, vocabulary = len(student.hidden), len(student.weight)
    (full,) = in_full_precision(student.weight.new_empty(0))
    found = Found(full.new_empty(tokens), full.new_zeros(tokens))
    if work.hidden:
        found.hidden = torch.zeros_like(student.hidden)
    if work.weight:
        found.weight = full.new_zeros(work.vocabulary, student.weight.shape[1])
    if work.bias:
        found.bias = full.new_zeros(work.vocabulary)
    chunks = list(work.chunks())
    rows = max((stop - start for start, stop in chunks), default=0)
    buffer = student.weight.new_empty(rows, vocabulary)
    target.begin(rows)
    for start, stop in chunks:
        ours = buffer[: stop - start]
        student.fill(ours, start)
        target.fill(start, stop)
        for tile in _tiles(ours, full.element_size()):
            _compare(work, ours[tile], start + tile.start, found)
        if work.differentiated:
            _products(work, ours, start, found)
    return found


def _compare(work: Work, ours: Tensor, start: int, found: Found) -> None:
    """Values of a few tokens; their gradient is written over the student's logits."""
    logits, slope = work.student.finished(ours)
    values, gradient = work.target.compare(logits, start)
    tokens = slice(start, start + len(ours))
    found.values[tokens] = values
    if work.labels is not None:
        labels = work.labels[tokens]
        found.label_values[tokens] = hard_label(logits, labels)
        if work.differentiated:
            labelled = (labels != -100).unsqueeze(-1)
            off = logits.softmax(-1)
            one = torch.ones_like(labels, dtype=off.dtype).unsqueeze(-1)
            off.scatter_add_(-1, labels.clamp(min=0).unsqueeze(-1).long(), -one)
            gradient = gradient.add_(off.mul_(labelled * work.label_weight))
    if work.differentiated:
        gradient = gradient if isinstance(slope, float) and slope == 1 else gradient.mul_(slope)
        ours.copy_(gradient if work.raised == 1 else gradient.mul_(work.raised))


def _products(work: Work, gradient: Tensor, start: int, found: Found) -> None:
    """Gradients of hidden states, weight and bias, from that of W h + b."""
    student = work.student
    hidden = student.hidden[start : start + len(gradient)]
    of_hidden = None
    if found.hidden is not None:
        of_hidden = found.hidden[start : start + len(gradient)]
        # A sum over blocks, in float32 at least.
        total = in_full_precision(of_hidden)[0]
    for block in _blocks(student.weight):
        part = gradient[:, block]
        if of_hidden is not None:
            _add_product(total, part, student.weight[block], 1 / work.raised)
        if found.weight is not None:
            _add_product(found.weight[block], part.T, hidden, 1 / work.raised)
        if found.bias is not None:
            of_bias = part.sum(0, dtype=found.bias.dtype)
            found.bias[block].add_(of_bias, alpha=1 / work.raised)
    if of_hidden is not None and total is not of_hidden:
        of_hidden.copy_(total)


def _add_product(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b, alpha=factor)
    elif a.dtype != torch.float16:
        total.add_(a @ b, alpha=factor)
    # Sums over many tokens would leave the range of float16, and those over few lose digits.
    elif a.is_cuda and SUMS_WIDER:
        total.add_(torch.mm(a, b, out_dtype=total.dtype), alpha=factor)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype), alpha=factor)


def _blocks(weight: Tensor) -> Iterator[slice]:
    size = len(weight)
    if weight.device.type == "cpu":
        size = max(CACHE // (weight.shape[1] * weight.element_size()), 64)
    return (slice(i, min(i + size, len(weight))) for i in range(0, len(weight), max(size, 1)))


def _tiles(logits: Tensor, element: int) -> Iterator[slice]:
    # Elsewhere what lies between must not be many times the chunk.
    cache = CACHE if logits.device.type == "cpu" else 128 * MIB
    size = max(cache // (logits.shape[1] * element), 1)
    return (slice(i, min(i + size, len(logits))) for i in range(0, len(logits), size))


class FusedLinear(torch.autograd.Function):
    """Sums over the tokens of both losses, one of them weighted, and the value of each token."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: Work
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors are those of `work.student`, for autograd to see."""
        found = compute(work)
        ctx.gradients, ctx.work = found.gradients, work
        # They are not read; autograd refuses another backward if they were changed in between.
        ctx.save_for_backward(hidden, weight, bias)
        total, of_labels = found.values.sum(), found.label_values.sum()
        ctx.mark_non_differentiable(found.values, of_labels)
        if work.labels is not None:
            total = total + of_labels * work.label_weight
        return total, found.values, of_labels

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """What was found in the forward, times the slope of what is made of the sum."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "A fused loss has no second derivative: its gradient is computed in the "
                "forward. Set `fused` to false where a gradient is differentiated again "
                "(create_graph=True)."
            )
        inputs = ctx.saved_tensors
        # Given away and not copied, as that of the weight may be the largest tensor of all; who
        # asks again waits for it again.
        gradients, ctx.gradients = ctx.gradients or compute(ctx.work).gradients, None
        return *(
            None if gradient is None else gradient.mul_(outer[0]).to(x.dtype)
            for gradient, x in zip(gradients, inputs, strict=True)
        ), None
