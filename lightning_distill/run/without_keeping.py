"""A teacher that answers, and writes nothing of it."""

from typing import Any

from ..teachers import Teacher


def without_keeping(teacher: Any) -> Any:
    """The teacher; of one that keeps its answers the model itself.

    Args:
        teacher: any; `None` if there is none.
    """
    if teacher is None:
        return None
    of = Teacher.of(teacher)
    return teacher if of.is_live or of.model is None else Teacher(of.model)
