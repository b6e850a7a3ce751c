"""A metric that names what it reads, as terms of an objective do."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from ..models.source import Source

UNLABELLED = -100
TARGET = "target"


class FromSources(WrapperMetric):
    """Any metric, fed with tensors of the models and of the batch that are named.

    Other metrics are given what the task predicts and its labels. This one reads a second head, a
    layer, an entry of the batch:
    `FromSources(metric, {"preds": "student.pooled:cls,row_head", "target": "batch.row_labels"})`.

    Where there is an argument `target`, what has no label in it, -100 or NaN, is left out of all
    arguments. One that reads a source of the teacher is measured where there is a teacher. In a
    test the teacher alone is measured too: sources of the student are read from it instead, where
    it has all of them.

    Args:
        metric: of torchmetrics or one of your own; it has the state, and is synchronised itself.
        inputs: from the arguments of its `update` to sources, see
            [`lightning_distill.models.source`][].

    Raises:
        ValueError: for what is no metric, and for malformed sources.
    """

    names_sources = True

    def __init__(self, metric: Any, inputs: Mapping[str, str | Source]):
        super().__init__()
        if not isinstance(metric, Metric):
            raise ValueError(
                f"`metric` of FromSources must be a torchmetrics.Metric, got a "
                f"{type(metric).__name__}."
            )
        if not inputs:
            raise ValueError(
                f"`inputs` of FromSources({type(metric).__name__}) is empty; name a source for "
                "each argument of its update, as in {preds: student.logits, target: batch.labels}."
            )
        self.metric = metric
        self.inputs = {
            str(name): source if isinstance(source, Source) else Source.parse(source)
            for name, source in inputs.items()
        }

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """What the metric says."""
        return self.metric.higher_is_better

    @property
    def parts(self) -> dict[str, float]:
        """What the metric is made of, if it says so."""
        return dict(getattr(self.metric, "parts", {}))

    @property
    def update_count(self) -> int:
        """How often the metric was fed."""
        return self.metric.update_count

    @property
    def update_called(self) -> bool:
        """Whether the metric was fed."""
        return self.metric.update_called

    def update(self, **values: Tensor) -> None:
        """Feed the metric with what has a label; nothing where no row has one.

        Args:
            values: by the names of `inputs`, `(rows, ...)`, or `(rows, tokens, ...)` where
                `target` has an entry for each token.
        """
        found = _labelled(values)
        if found is not None:
            self.metric.update(**found)

    def compute(self) -> Any:
        """The metric's value over all batches and ranks."""
        return self.metric.compute()

    def forward(self, **values: Tensor) -> Any:
        """Feed the metric, and give its value on these values alone."""
        found = _labelled(values)
        return None if found is None else self.metric(**found)

    def persistent(self, mode: bool = False) -> None:
        """Whether checkpoints hold what the metric has counted."""
        self.metric.persistent(mode)

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self.metric.reset()


def _labelled(values: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Those entries of all tensors that have a label, in float32 at least; `None` without any."""
    found = {name: _in_full_precision(value) for name, value in values.items()}
    target = found.get(TARGET)
    if target is None:
        return found
    known = target != UNLABELLED
    if target.is_floating_point():
        known = known & ~target.isnan()
    others = [value for name, value in found.items() if name != TARGET]
    if target.dim() > 1 and any(value.shape == target.shape for value in others):
        # Several labels of one row.
        known = known.flatten(1).all(1)
    if not known.any():
        return None
    shape = known.shape
    return {n: v[known] if v.shape[: known.dim()] == shape else v for n, v in found.items()}


def _in_full_precision(value: Tensor) -> Tensor:
    whole = (torch.float32, torch.float64)
    return value.float() if value.is_floating_point() and value.dtype not in whole else value


__all__ = ["FromSources"]
