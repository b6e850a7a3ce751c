"""What a metric says of itself: the one place that asks for attributes which it may lack."""

from typing import Any

from ..tasks import Task


def needs_teacher(metric: Any) -> bool:
    """Whether a metric, or a class of metrics, compares the predictions of both models."""
    return bool(getattr(metric, "needs_teacher", False))


def batch_entries(metric: Any) -> tuple[str, ...]:
    """The entries of a batch that a metric is given by keyword."""
    return tuple(getattr(metric, "batch_entries", ()))


def parts_of(metric: Any) -> dict[str, float]:
    """What a metric is made of, once it has been computed, such as kinds of entities."""
    return dict(getattr(metric, "parts", {}))


def optional_entries(metric: Any) -> tuple[str, ...]:
    """Further entries that a metric of whole rows is given where the batch has them."""
    return tuple(getattr(metric, "optional_entries", ()))


def reads_vectors(metric: Any) -> bool:
    """Whether a metric is given predictions as they are, and not what the task makes of them."""
    return bool(getattr(metric, "reads_vectors", False))


def reads_rows(metric: Any) -> bool:
    """Whether a metric of tokens is given whole rows, such as one that looks for entities."""
    return bool(getattr(metric, "reads_rows", False))


def reads_texts(metric: Any) -> bool:
    """Whether a metric is given what a model writes, and no predictions."""
    return bool(getattr(metric, "reads_texts", False))


def take_task(metric: Any, task: Task) -> None:
    """Tell a metric the task of the data, if it has a `task` and nobody named one."""
    if getattr(metric, "task", task) is None:
        metric.task = task


def reads_softmax(metric: Any) -> bool:
    """Whether a metric takes the softmax of what models predict."""
    return bool(getattr(metric, "reads_softmax", False))


def best_mode(metric: Any, otherwise: str = "max") -> str:
    """What is best of a metric, `max` or `min`; `otherwise` where there is none.

    A metric that does not say is best at its largest.
    """
    if metric is None:
        return otherwise
    return "min" if getattr(metric, "higher_is_better", True) is False else "max"
