"""Criteria that mean something only where exactly one class is right."""

from collections.abc import Mapping
from typing import Any

from .. import criteria
from .task import Task

SOFTMAX = (
    criteria.DIST,
    criteria.DKD,
    criteria.JSD,
    criteria.KnowledgeDistillation,
    criteria.MLKD,
    criteria.NKD,
    criteria.OFA,
    criteria.ReverseKL,
    criteria.SkewKL,
    criteria.SkewReverseKL,
    criteria.SoftCrossEntropy,
    criteria.SoftTarget,
    criteria.TAID,
    criteria.TfKD,
    criteria.TotalVariation,
    criteria.WSLD,
)


def check_softmax(terms: Mapping[str, Any], task: Task) -> None:
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
        if term.active and isinstance(getattr(term, "criterion", None), SOFTMAX):
            raise ValueError(
                f"{name} compares a softmax over the classes, which data.task={task.name} does not "
                "have. Take another, as in criteria=[hard_label,logit_mse], or for independent "
                "labels criteria=[hard_label,one_versus_all]."
            )
