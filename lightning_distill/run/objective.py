"""The objective of a run."""

from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..objective.objective import Objective
from ..objective.term import Terms
from ..tasks import check_softmax, Task
from ..tasks.task import ROW_LABELS
from .call import group
from .targets import instantiate
from .task import task_in


def build_objective(cfg: DictConfig) -> Objective:
    """All terms of `cfg.criteria`.

    Raises:
        ValueError: if there are none, or one is not meant for the task.
    """
    terms = _terms(cfg)
    check_softmax(terms, task_in(cfg) or Task())
    balance = instantiate(cfg.balance) if group(cfg, "balance") else None
    return Objective(terms, balance)


def build_label_objective(cfg: DictConfig, model: nn.Module) -> Objective:
    """The terms of `cfg.criteria` that read no teacher, or plain labels if there are none.

    Args:
        cfg: the run's configuration.
        model: which will learn from them.
    """
    terms = _terms(cfg)
    kept = {
        name
        for name, term in terms.items()
        if term.active and all(source.role != "teacher" for source in term.sources())
    }
    if kept and kept != set(terms):
        # What a label loss weighs depends on the terms beside it, and these are fewer now.
        alone = cfg.copy()
        alone.criteria = {name: node for name, node in cfg.criteria.items() if name in kept}
        terms = _terms(alone)
    terms = {name: term for name, term in terms.items() if name in kept}
    if not terms:
        return Objective(label_terms(cfg, model))
    if cfg.get("num_row_labels") and not any(map(_reads_row_labels, terms.values())):
        # Of whole rows it would learn nothing by itself, where others learn it of a teacher.
        own = {"row_label": (task_in(cfg) or Task()).row_term()}
        terms |= own if learns_row_head(cfg) else {}
    return Objective(terms)


def label_terms(
    cfg: DictConfig, model: nn.Module, label_smoothing: float = 0.0
) -> dict[str, Terms]:
    """What a model learns of labels alone: those of the task, and those of whole rows if any.

    Args:
        cfg: the run's configuration.
        model: which will learn from them.
        label_smoothing: share of the label's probability that is spread over all classes.
    """
    task = task_in(cfg) or Task()
    found = {"hard_label": task.label_term(model, label_smoothing)}
    if cfg.get("num_row_labels"):
        found["row_label"] = task.row_term(label_smoothing)
    return found


def learns_row_head(cfg: DictConfig) -> bool:
    """Whether a term of the run reads the student's head for labels of whole rows."""
    return any(_reads_row_head(term) for term in _terms(cfg).values() if term.active)


def _reads_row_labels(term: Any) -> bool:
    return ROW_LABELS in term.sources()


def _reads_row_head(term: Any) -> bool:
    return any(source.role == "student" and source.of_row_head for source in term.sources())


def _terms(cfg: DictConfig) -> dict[str, Any]:
    if not group(cfg, "criteria"):
        raise ValueError("`criteria` is empty; choose some, as in criteria=[hard_label].")
    terms = {
        str(name): instantiate(node, _convert_="object")
        for name, node in group(cfg, "criteria").items()
        if node is not None
    }
    return (task_in(cfg) or Task()).terms(terms)
