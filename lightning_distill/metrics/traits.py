"""What a metric says of itself: the one place that asks for attributes which it may lack."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.source import Source
from ..tasks import Task


def sources_of(metric: Any, options: Mapping[str, Any] | None = None) -> dict[str, Source]:
    """From arguments of a metric to the sources that it names for them; empty where it names none.

    Args:
        metric: one, or a class of metrics.
        options: that a class will be given.
    """
    if not getattr(metric, "names_sources", False):
        return {}
    named = (options or {}).get("inputs", {}) if isinstance(metric, type) else metric.inputs
    return {
        str(name): source if isinstance(source, Source) else Source.parse(str(source))
        for name, source in named.items()
    }


def needs_teacher(metric: Any, options: Mapping[str, Any] | None = None) -> bool:
    """Whether a metric reads what both models say.

    Args:
        metric: one, or a class of metrics.
        options: that a class will be given.
    """
    reads = any(source.role == "teacher" for source in sources_of(metric, options).values())
    return reads or bool(getattr(metric, "needs_teacher", False))


def batch_entries(metric: Any) -> tuple[str, ...]:
    """The entries of a batch that a metric is given by keyword."""
    return tuple(getattr(metric, "batch_entries", ()))


def parts_of(metric: Any) -> dict[str, float]:
    """What a metric is made of, once it has been computed, such as kinds of entities."""
    return dict(getattr(metric, "parts", {}))


def state_holder(metric: Any) -> Any:
    """The metric that holds the states: itself, or the one that it feeds."""
    return metric.metric if getattr(metric, "names_sources", False) else metric


def compares_rows(metric: Any) -> bool:
    """Whether a metric compares rows with each other, as the pairs of all texts."""
    return bool(getattr(state_holder(metric), "compares_rows", False))


def tells_units(metric: Any) -> bool:
    """Whether a metric says, once it has been computed, of which units it is the mean."""
    return hasattr(state_holder(metric), "units")


def units_of(metric: Any) -> Tensor | None:
    """Of each unit, such as a question, numerator and denominator, `(units, 2)`.

    The metric is the sum of the first, divided by that of the second. `None` of one that does not
    say, or has not been computed. One whose class has the attribute `units` always says it.
    """
    found: Tensor | None = getattr(state_holder(metric), "units", None)
    return found


def added_by(metric: Any) -> dict[str, Tensor] | None:
    """By the names of states, what each sample of the last batch has added, `(samples, ...)`.

    `None` of a metric that does not say; then it is asked with each row again.
    """
    # One that is fed by another is given what that one makes of the samples.
    found: dict[str, Tensor] | None = getattr(metric, "added", None)
    return found


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


# Of torchmetrics: they take logits for probabilities where all of an update lie between 0 and 1.
# The other ones of many classes look for the largest, which is the same for both.
READ_PROBABILITIES = (
    "MulticlassPrecisionRecallCurve",
    "MulticlassCalibrationError",
    "MulticlassHingeLoss",
)


def reads_probabilities(metric: Any) -> bool:
    """Whether a metric is about probabilities, and may not be given logits."""
    names = {cls.__name__ for cls in type(state_holder(metric)).__mro__}
    return bool(names & {*READ_PROBABILITIES}) or _is_of(metric, "Binary", "Multilabel")


def is_binary(metric: Any) -> bool:
    """Whether a metric is given one probability for each sample, that of the second class."""
    return _is_of(metric, "Binary")


def _is_of(metric: Any, *beginnings: str) -> bool:
    """Whether the name of a class of torchmetrics, or of one it is derived from, begins so."""
    return any(
        cls.__module__.startswith("torchmetrics.classification")
        and cls.__name__.startswith(beginnings)
        for cls in type(state_holder(metric)).__mro__
    )


# Of torchmetrics, which do not say it.
ZERO_BY_CHANCE = (
    *("SpearmanCorrCoef", "PearsonCorrCoef", "MulticlassMatthewsCorrCoef"),
    *("BinaryMatthewsCorrCoef", "MultilabelMatthewsCorrCoef"),
)


def value_by_chance(metric: Any) -> float | None:
    """What answers reach that have nothing to do with the labels; `None` if it depends on these.

    Args:
        metric: one, or `None`.
    """
    names = {cls.__name__ for cls in type(metric).__mro__}
    return 0.0 if names & {*ZERO_BY_CHANCE} else None


def best_mode(metric: Any, otherwise: str = "max") -> str:
    """What is best of a metric, `max` or `min`; `otherwise` where there is none.

    A metric that does not say is best at its largest.
    """
    if metric is None:
        return otherwise
    return "min" if getattr(metric, "higher_is_better", True) is False else "max"
