"""Layers of the student compared with layers of the teacher, one mapping at a time."""

import math
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ..criteria import HardLabel, hint, soft_cross_entropy
from ..criteria._check import masked_mean
from ..criteria.criterion import Criterion
from ..models.source import Source
from .term import Term, Terms
from .weight import check_weight, scaled, Weight

LOSS_TYPES = ("MSE", "L1", "KL", "CE")


class _Comparison(Criterion):
    """Two layers, over the tokens that count, or over all entries of what has no tokens."""

    def __init__(self, loss_type: str, compat: str | None):
        super().__init__()
        self.loss_type, self.compat = loss_type, compat
        # Until tensors were seen it is not known whether they have tokens.
        self.has_tokens = True

    def prepare(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> None:
        self.has_tokens = mask is not None and student.shape[:-1] == mask.shape

    def counted(self, **inputs: Any) -> Tensor | None:
        return super().counted(**inputs) if self.has_tokens and self.compat is None else None

    def forward(
        self,
        student: Float[Tensor, "..."],
        teacher: Float[Tensor, "..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        if self.compat == "inc" and self.loss_type == "KL":
            return _kl_of_neural_compressor(student, teacher)
        if self.loss_type == "CE":
            values = soft_cross_entropy(student, teacher)
        else:
            values = hint(student, teacher, self.loss_type.lower())
        # Padding counts only for tensors that have a token dimension: logits have none.
        if self.compat == "inc" or mask is None or values.shape != mask.shape:
            mask = None
        return masked_mean(values, mask)

    def extra_repr(self) -> str:
        return self.loss_type


def _kl_of_neural_compressor(student: Tensor, teacher: Tensor) -> Tensor:
    # Values that sum to about one are taken for probabilities, and the mean runs over
    # all elements, as in neural-compressor 2.6.
    def is_distribution(x: Tensor) -> bool:
        return not bool(((x.sum(-1) - 1).abs() > 0.2).any())

    student, teacher = student.float(), teacher.float()
    log_q = torch.log(student + 1e-9) if is_distribution(student) else student.log_softmax(-1)
    p = teacher if is_distribution(teacher) else teacher.softmax(-1)
    return F.kl_div(log_q, p, reduction="sum") / p.numel()


class IntermediateLayers(Terms):
    r"""Terms that compare chosen layers of student and teacher.

    $$\sum_i w_i \, D_i\big(A_i(S_i), T_i\big) \;(+ L_\mathrm{label})$$

    where $A_i$ is a trained linear adapter if the widths differ. It takes the arguments of
    `IntermediateLayersKnowledgeDistillationLoss` of Intel's neural-compressor 2.6.

    Each comparison is a term of its own, `NAME_0`, `NAME_1` and so on, and the label loss
    `NAME_label`; `NAME` is logged as their weighted sum.

    Args:
        layer_mappings: one entry per comparison: `[name]` (the same layer of both),
            `[student, teacher]`, and instead of a name `[name, process]`, where `process` takes
            a tensor out of what the layer returns: an index (`"1"` or `1`), a key, or a callable.
            `""` is the whole model, that is its logits. One layer may occur many times.
        loss_types: `MSE`, `L1`, `KL` or `CE` per mapping; `MSE` by default. `KL` and `CE` (nats)
            take logits and compare their softmax over the last dimension.
        loss_weight_ratio: $w_i$ per mapping, any numbers that are not negative; `1/n` by default.
        add_origin_loss: add the label loss with weight 1.
        label_kind: which label loss, see [`HardLabel`][lightning_distill.criteria.HardLabel].
        weight: of the whole sum.
        mask: which positions count in tensors of shape `(batch, tokens, ...)`; `None` for all.
        compat: `"inc"` counts padding and averages KL over all elements, as neural-compressor did.
        until: the fraction of the run after which all of it counts no more.

    Raises:
        ValueError: if a mapping has no known form or the lengths differ.
    """

    def __init__(
        self,
        layer_mappings: Sequence[Any] = (),
        loss_types: Sequence[str] | None = None,
        loss_weight_ratio: Sequence[float] | None = None,
        add_origin_loss: bool = False,
        label_kind: str = "cross_entropy",
        weight: Weight = 1.0,
        mask: str | None = "batch.attention_mask",
        compat: str | None = None,
        until: float | None = None,
    ):
        super().__init__()
        n = len(layer_mappings)
        if n == 0:
            raise ValueError(
                "`layer_mappings` is empty: name the layers to compare, for example "
                "[[bert.encoder.layer.0,bert.encoder.layer.1]]; "
                "`lightning-distill job=inspect` lists them and suggests a mapping."
            )
        types = [str(t).upper() for t in loss_types] if loss_types else ["MSE"] * n
        weights = list(loss_weight_ratio) if loss_weight_ratio else [1 / n] * n
        for name, values in (("loss_types", types), ("loss_weight_ratio", weights)):
            if len(values) != n:
                raise ValueError(
                    f"`{name}` needs one entry for each of the {n} layer mappings, "
                    f"got {len(values)}."
                )
        for loss_type in types:
            if loss_type not in LOSS_TYPES:
                near = get_close_matches(loss_type, LOSS_TYPES, n=1)
                hint_ = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"`loss_types` are {', '.join(LOSS_TYPES)}, got {loss_type!r}.{hint_}"
                )
        if compat not in (None, "inc"):
            raise ValueError(f"`compat` must be null or 'inc', got {compat!r}.")
        if not any(weights) and not add_origin_loss:
            raise ValueError(
                "Every `loss_weight_ratio` of the layers is 0, so there is nothing to learn; give "
                "one a positive number, or leave the ratio out for equal ones."
            )
        if not any(weights):
            warnings.warn("every `loss_weight_ratio` of the layers is 0", stacklevel=2)
        self.weight = check_weight(weight, until)
        # Named, and none: everything counts.
        optional: dict[str, Source | None] = {"mask": None}
        if mask is not None and compat is None:
            source = Source.parse(mask)
            optional["mask"] = Source(source.role, source.kind, source.name, optional=True)
        self.ratios = [_checked(ratio) for ratio in weights]
        self.comparisons = nn.ModuleList()
        for mapping, loss_type, ratio in zip(layer_mappings, types, self.ratios, strict=True):
            student, teacher = _sides(mapping)
            self.comparisons.append(
                Term(
                    _Comparison(loss_type, compat),
                    {
                        "student": _source("student", student),
                        "teacher": _source("teacher", teacher),
                        **optional,
                    },
                    weight=scaled(self.weight, ratio),
                    adapter="linear",
                )
            )
        self.label = None
        if add_origin_loss:
            inputs = {"student": _LOGITS, "labels": _LABELS}
            self.label = Term(HardLabel(kind=label_kind), inputs, weight=self.weight)

    def sources(self) -> list[Source]:
        """Everything the terms read."""
        terms = (term for _, term in self.expanded().values() if term.active)
        return list(dict.fromkeys(source for term in terms for source in term.sources()))

    def expanded(self) -> Mapping[str, tuple[float, Term]]:
        """A term for each comparison, and that of the labels."""
        found = {
            str(i): (ratio, term)
            for i, (ratio, term) in enumerate(zip(self.ratios, self.comparisons, strict=True))
            if isinstance(term, Term)
        }
        return found if self.label is None else {**found, "label": (1.0, self.label)}


_LOGITS = Source("student", "output", "logits")
_LABELS = Source("batch", "output", "labels")


def _checked(ratio: Any) -> float:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < math.inf:
        raise ValueError(
            f"`loss_weight_ratio` must be numbers that are finite and not negative, got {ratio!r}."
        )
    return float(ratio)


def _sides(mapping: Any) -> tuple[Any, Any]:
    """The student's and the teacher's part of one mapping."""
    if isinstance(mapping, str):
        return mapping, mapping
    if isinstance(mapping, Sequence) and len(mapping) in (1, 2):
        return mapping[0], mapping[-1]
    raise ValueError(
        "A layer mapping is [name] or [student, teacher], and a name may be [name, process], "
        f"got {mapping!r}."
    )


def _source(role: str, side: Any) -> Source:
    """One side of a mapping: a name, or a name and what to take out of its output."""
    if isinstance(side, str):
        return Source(role, "layer", side)
    if not isinstance(side, Sequence) or len(side) not in (1, 2) or not isinstance(side[0], str):
        raise ValueError(f"One side of a layer mapping is a name or [name, process], got {side!r}.")
    name, process = side[0], side[1] if len(side) == 2 else ""
    if process in ("", None):
        return Source(role, "layer", name)
    if callable(process):
        return Source(role, "layer", name, process=process)
    if isinstance(process, bool) or not isinstance(process, str | int):
        raise ValueError(
            f"The process of layer {name!r} is an index, a key or a callable, got {process!r}."
        )
    if isinstance(process, str) and process.lstrip("-").isdigit():
        process = int(process)
    return Source(role, "layer", name, item=process)
