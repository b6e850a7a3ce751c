"""Criteria that mean something only where exactly one class is right."""

from collections.abc import Mapping

from ..objective.term import Terms
from .task import Task


def check_softmax(terms: Mapping[str, Terms], task: Task) -> None:
    """Refuse terms that compare a softmax over classes where the task has none.

    Args:
        terms: of an objective, by name.
        task: that they shall learn.

    Raises:
        ValueError: naming the term, and which to take.
    """
    if task.has_softmax:
        return
    for name, term in terms.items():
        own = [part for _, part in term.expanded().values()]
        if term.active and any(part.criterion.needs_classes for part in own):
            raise ValueError(
                f"{name} compares a softmax over the classes, which data.task={task.name} does not "
                "have. Take another, as in criteria=[hard_label,logit_mse], or for independent "
                "labels criteria=[hard_label,one_versus_all]."
            )
