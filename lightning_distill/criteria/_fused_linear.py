"""Heads and what is asked of their logits, a few tokens at a time, gradient in the forward."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, mean_of, sum_over_ranks, without_autocast
from ._log_probabilities import WithGradient
from ._weighing import in_force
from .hard_label import hard_label, UNLABELLED

MIB = 2**20
# On a CPU what one product or one softmax touches must fit the cache of a core: a product with a
# large vocabulary takes half as long in blocks. Elsewhere a launch costs more than the cache saves.
CACHE = MIB


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
    def differentiated(self) -> bool:
        """Whether any gradient is wanted."""
        return self.hidden or self.weight or self.bias

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First and last of the tokens whose logits exist together, in equal parts."""
        tokens, weight = len(self.student.hidden), self.student.weight
        row = len(weight) * weight.element_size() + self.target.row_bytes
        count = -(-tokens // max(self.chunk_bytes // row, 1))
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
        ours.copy_(gradient if isinstance(slope, float) and slope == 1 else gradient.mul_(slope))


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
            _add_product(total, part, student.weight[block])
        if found.weight is not None:
            _add_product(found.weight[block], part.T, hidden)
        if found.bias is not None:
            found.bias[block].add_(part.sum(0, dtype=found.bias.dtype))
    if of_hidden is not None and total is not of_hidden:
        of_hidden.copy_(total)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


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
    """Sum over the tokens of value and weighted cross-entropy; the value of each."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: Work
    ) -> tuple[Tensor, Tensor]:
        """The tensors are those of `work.student`, for autograd to see."""
        found = compute(work)
        ctx.gradients, ctx.work = found.gradients, work
        # They are not read; autograd refuses another backward if they were changed in between.
        ctx.save_for_backward(hidden, weight, bias)
        ctx.mark_non_differentiable(found.values)
        total = found.values.sum()
        if work.labels is not None:
            total = total + found.label_values.sum() * work.label_weight
        return total, found.values

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


def mean_over_chunks(
    student: Float[Tensor, "... width"],
    head: Any,
    shared: int,
    counted: Bool[Tensor, "..."],
    target: Callable[[Callable[[Tensor], Tensor], torch.dtype | None], Target],
    labels: Int[Tensor, "..."] | None = None,
    label_weight: Tensor | float = 0.0,
    chunk_mb: float | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " counted"]]:
    """The mean over the tokens that count, with its gradient, and their values.

    Args:
        student: what the student's head is given.
        head: the student's.
        shared: how many of its classes are compared.
        counted: which tokens count.
        target: makes what they are compared with, from a function that selects the tokens that
            count, and the type in which autocast takes products.
        labels: -100 where there is none, and where a token does not count.
        label_weight: of the cross-entropy with them.
        chunk_mb: MiB for the logits of a chunk.
    """
    whole = bool(counted.all())

    def select(values: Tensor) -> Tensor:
        return values.flatten(0, counted.dim() - 1) if whole else values[counted]

    student = select(student)
    labels = None if labels is None else select(labels)
    count = torch.tensor(len(student), device=student.device)
    of_label: Tensor | float = label_weight
    if labels is not None:
        # The sum is divided by the number of tokens, this part of it by that of labels.
        both = sum_over_ranks(torch.stack([count, (labels != UNLABELLED).sum()]))
        both = both.to(in_full_precision(student)[0].dtype)
        of_label = of_label * both[0] / both[1].clamp(min=1)
    weight, bias, _, _ = parts(head)
    learns = [
        torch.is_grad_enabled() and x is not None and x.requires_grad
        for x in (student, weight, bias)
    ]
    device = student.device.type
    chunk_mb = chunk_mb or (36 if device == "cpu" else 1024)
    lower = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    with without_autocast(student):
        work = Work(
            student=side_of("student", student, head, shared, lower),
            target=target(select, lower),
            labels=labels,
            label_weight=of_label,
            chunk_bytes=int(chunk_mb * MIB),
            hidden=learns[0],
            weight=learns[1],
            bias=learns[2],
            vocabulary=len(weight),
        )
        total, values = FusedLinear.apply(student, weight, bias, work)
        return mean_of(total, count), values


def whole_logits(
    hidden: Float[Tensor, "... width"], head: Any, shared: int
) -> Float[Tensor, "... shared"]:
    """The logits of the first `shared` classes of a head, as autograd follows them."""
    weight, bias, scale, softcap = parts(head)
    logits = F.linear(hidden, weight[:shared], None if bias is None else bias[:shared])
    (logits,) = in_full_precision(logits)
    logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def check_settings(label_weight: float, shared_vocab: int | None, chunk_mb: float | None) -> None:
    """Refuse what a fused criterion cannot be set to."""
    if isinstance(label_weight, bool) or not 0 <= label_weight < float("inf"):
        raise ValueError(f"`label_weight` must be finite and not negative, got {label_weight!r}.")
    if chunk_mb is not None:
        check_positive("chunk_mb", chunk_mb)
    if shared_vocab is not None and shared_vocab < 1:
        raise ValueError(f"`shared_vocab` must be at least 1, got {shared_vocab}.")


def refuse_weights(criterion: Any, instead: str) -> None:
    """Refuse to be weighed by sample: the values of tokens are summed while they are found."""
    if in_force() is not None:
        raise ValueError(
            f"{type(criterion).__name__} cannot be weighed by sample: it sums over the tokens "
            f"while it computes them. Use {instead} on the logits."
        )


def tokens_that_count(
    student: Float[Tensor, "... width"],
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None,
    labels: Int[Tensor, "..."] | None,
    label_weight: float,
    shift_labels: bool,
) -> tuple[Bool[Tensor, "..."], Int[Tensor, "..."] | None]:
    """Which tokens count, and the labels of those for the cross-entropy, if it has a weight.

    Raises:
        ValueError: for a mask or labels of another shape, or a weight without labels.
    """
    if label_weight and labels is None:
        raise ValueError(
            f"`label_weight` is {label_weight:.4g} and there are no labels: add "
            "labels=batch.labels to the term's inputs, or set `label_weight` to 0."
        )
    tokens = student.shape[:-1]
    if labels is not None:
        if labels.shape != tokens:
            raise ValueError(
                f"`labels` must have one entry per token, shape {tuple(tokens)}, "
                f"got {tuple(labels.shape)}."
            )
        labels = F.pad(labels[..., 1:], (0, 1), value=UNLABELLED) if shift_labels else labels
    if mask is not None:
        if mask.shape != tokens:
            raise ValueError(
                f"`mask` must have one entry per token, shape {tuple(tokens)}, got "
                f"{tuple(mask.shape)}."
            )
        counted = mask != 0
    elif labels is not None:
        counted = labels != UNLABELLED
    else:
        counted = torch.ones(tokens, dtype=torch.bool, device=student.device)
    if labels is None or not label_weight:
        return counted, None
    return counted, labels.masked_fill(~counted, UNLABELLED)


def parts(head: Any) -> tuple[Tensor, Tensor | None, float, float | None]:
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


def side_of(role: str, hidden: Tensor, head: Any, shared: int, lower: torch.dtype | None) -> Side:
    """Hidden states and the first rows of a head, in one type, without graph."""
    weight, bias, scale, softcap = parts(head)
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
