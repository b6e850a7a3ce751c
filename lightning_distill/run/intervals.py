"""How far other test rows may bring what a test has measured."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from torch import Tensor

from ..report import intervals_of, Predictions
from ..training.module import DistillationModule

V = TypeVar("V")
# How the names of the teacher's metrics begin in a test.
OF_TEACHER = "teacher_"


def intervals_of_test(
    module: DistillationModule, metrics: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of the metrics of a test, by their names.

    Shares of classes, F1 and Matthews' correlation follow from the classes that are predicted for
    all rows; others from what rows add to the metric, which the test has kept and is forgotten now.

    Args:
        module: after a test that has kept its rows.
        metrics: that were logged.
    """
    rows = {of: _predictions(own) for of, own in module.test_rows.items()}
    student, teacher = rows.get("student"), rows.get("teacher")
    found = {
        **intervals_of(without_teacher(metrics), student, teacher),
        **{OF_TEACHER + n: v for n, v in intervals_of(of_teacher(metrics), teacher).items()},
    }
    kept, module.test_states = module.test_states, None
    if kept is not None:
        rest = {name: value for name, value in metrics.items() if name not in found}
        found |= kept.intervals(rest)
    return found


def of_teacher(values: Mapping[str, V]) -> dict[str, V]:
    """What is said of the teacher, by the names of metrics."""
    return {n.removeprefix(OF_TEACHER): v for n, v in values.items() if n.startswith(OF_TEACHER)}


def without_teacher(values: Mapping[str, V]) -> dict[str, V]:
    """What is said of the student, by the names of metrics."""
    return {name: v for name, v in values.items() if not name.startswith(OF_TEACHER)}


def _predictions(rows: Mapping[str, Tensor]) -> Predictions:
    names = ("row", "label", "predicted", "confidence")
    row, label, predicted, confidence = (np.asarray(rows[name]) for name in names)
    return Predictions(row, label, predicted, confidence)
