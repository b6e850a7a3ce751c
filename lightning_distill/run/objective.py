"""The objective of a run."""

from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..objective.objective import Objective
from ..tasks import check_softmax, Task
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
    return Objective(terms or {"hard_label": (task_in(cfg) or Task()).label_term(model)})


def _terms(cfg: DictConfig) -> dict[str, Any]:
    if not group(cfg, "criteria"):
        raise ValueError("`criteria` is empty; choose some, as in criteria=[hard_label].")
    terms = {
        str(name): instantiate(node, _convert_="object")
        for name, node in group(cfg, "criteria").items()
        if node is not None
    }
    return (task_in(cfg) or Task()).terms(terms)
