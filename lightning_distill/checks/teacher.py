"""Whether the teacher knows what it is to teach, by the task's own metric."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..metrics.traits import best_mode, value_by_chance
from ..tasks import Task
from ..training.weak_teacher import Measured
from .finding import Finding, Level

CAUSES = (
    "Was its head ever trained? Are its labels those of the data, in this order "
    "(data.label_names=[...])? Is data.tokenizer its own?"
)
OTHER_ORDER = (
    "So far below chance, its labels may be in another order: name them in the order of its head, "
    "data.label_names=[...], or in its config.json (id2label). Or was its head never trained?"
)
# Of what chance reaches; a teacher that knows nothing is not so far below.
FAR_BELOW = 0.5


def check_teacher(
    measured: Mapping[str, float],
    monitored: str,
    metric: Any,
    rows: int,
    constant: Measured | None,
    task: Task,
) -> Iterator[Finding]:
    """Compare what the teacher reaches on validation rows with what chance does.

    Args:
        measured: what a test has logged, by name.
        monitored: the metric that decides.
        metric: itself; `None` where that is the loss.
        rows: on how many rows it was measured.
        constant: what the teacher and the best constant answer reach, where the task has one.
        task: of the labels.
    """
    value = measured.get(f"test/teacher_{monitored}")
    if value is not None and not (constant is not None and constant.name == monitored):
        found = f"{monitored} {value:.4g} on {rows:,} validation rows"
        yield _by_chance(found, value, value_by_chance(metric), rows)
        if best_mode(metric) == "max" and value == 0 and value_by_chance(metric) is None:
            # Nothing is right: no answer, no word.
            do = CAUSES
            yield Finding("teacher.nothing", "teacher", f"{monitored} is 0", Level.WRONG, do)
    if constant is not None:
        yield _by_constant(constant, task)


def _by_chance(found: str, value: float, chance: float | None, rows: int) -> Finding:
    brief = f"Teacher: {found}"
    if chance is None:
        return Finding("teacher.metric", "teacher", found, brief=brief)
    found = f"{found}; by chance {chance:g}"
    if value <= chance + 2 / math.sqrt(max(rows, 1)):
        return Finding("teacher.chance", "teacher", found, Level.WRONG, CAUSES)
    return Finding("teacher.chance", "teacher", found, brief=brief)


def _by_constant(measured: Measured, task: Task) -> Finding:
    found = str(measured)
    if measured.is_weak:
        far = measured.higher_is_better and measured.teacher < FAR_BELOW * measured.constant
        # Tokens have no order of their own.
        far &= not task.predicts_ids
        do = OTHER_ORDER if far else CAUSES
        return Finding("teacher.chance", "teacher", found, Level.WRONG, do)
    if measured.higher_is_better:
        share = measured.constant
        error = math.sqrt(share * (1 - share) / measured.count)
        if measured.teacher < share + 2 * error:
            do = f"On {measured.count} {measured.unit} that may be chance. {CAUSES}"
            return Finding("teacher.chance", "teacher", found, Level.WARNING, do)
    return Finding("teacher.chance", "teacher", found)
