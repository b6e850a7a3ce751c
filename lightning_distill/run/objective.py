"""The objective of a run."""

import inspect
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn, Tensor

from .. import criteria
from ..data.text.rows import UNLABELLED
from ..models.head import linear_head
from ..models.source import Source
from ..objective.objective import Objective
from ..objective.term import Term
from .call import group

# Meant for labels of which exactly one is right.
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


def label_kind(task: str | None) -> str:
    """Which label loss belongs to a task."""
    kinds = {"multi_label": "binary_cross_entropy", "regression": "mse"}
    return kinds.get(str(task), "cross_entropy")


def build_objective(cfg: DictConfig) -> Objective:
    """All terms of `cfg.criteria`.

    Raises:
        ValueError: if there are none, or one is not meant for the task.
    """
    terms = _terms(cfg)
    for name, term in terms.items():
        criterion = getattr(term, "criterion", None)
        if (
            cfg.task in ("multi_label", "regression")
            and isinstance(criterion, SOFTMAX)
            and term.active
        ):
            raise ValueError(
                f"{name} compares a softmax over the classes, which data.task={cfg.task} does not "
                "have. Take another, as in criteria=[hard_label,logit_mse], or for independent "
                "labels criteria=[hard_label,one_versus_all]."
            )
    balance = instantiate(cfg.balance) if group(cfg, "balance") else None
    return Objective(terms, balance)


def build_label_objective(cfg: DictConfig, model: nn.Module) -> Objective:
    """The terms of `cfg.criteria` that read no teacher, or plain labels if there are none.

    Args:
        cfg: the run's configuration.
        model: which will learn from them.
    """
    terms = {
        name: term
        for name, term in _terms(cfg).items()
        if term.active and all(source.role != "teacher" for source in term.sources())
    }
    return Objective(terms or {"hard_label": label_term(cfg.task, model)})


def label_term(task: str | None, model: nn.Module, label_smoothing: float = 0.0) -> Term:
    """What a model learns of labels alone; a language model without making its logits."""
    head = linear_head(model) if task == "language_modelling" and not label_smoothing else None
    if head is not None:
        fused = {"student": f"student.layer_input:{head}", "student_head": f"student.head:{head}"}
        return Term(criteria.FusedLinearCrossEntropy(), {**fused, "labels": "batch.labels"})
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    return Term(criteria.HardLabel(label_kind(task), label_smoothing), inputs)


def _terms(cfg: DictConfig) -> dict[str, Any]:
    if not group(cfg, "criteria"):
        raise ValueError("`criteria` is empty; choose some, as in criteria=[hard_label].")
    terms = {
        str(name): instantiate(node, _convert_="object")
        for name, node in group(cfg, "criteria").items()
        if node is not None
    }
    if cfg.task == "language_modelling":
        for term in terms.values():
            _mask_tokens(term)
    return terms


def _mask_tokens(term: Any) -> None:
    """Compare logits of the tokens that have a label only, where the term names no mask."""
    inputs = getattr(term, "inputs", {})
    if "mask" in inputs or not any(s.name == "logits" for s in inputs.values()):
        return
    if "mask" in inspect.signature(term.criterion.forward).parameters:
        term.inputs["mask"] = Source("batch", "output", "labels", process=_has_label)


def _has_label(labels: Tensor) -> Tensor:
    return labels != UNLABELLED
