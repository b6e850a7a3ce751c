"""The metrics of a run, and what it monitors."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric

from ..objective.objective import Objective
from .call import group

FITTING_METRICS = {
    "classification": "accuracy",
    "language_modelling": "perplexity",
    "multi_label": "multilabel_f1",
    "regression": "pearson",
}


def check_metric_task(cfg: DictConfig, name: str, node: Any) -> None:
    """Refuse a metric that measures something else than the task: it might be silently wrong."""
    target = str(node.get("_target_") if OmegaConf.is_dict(node) else None)
    given = cfg.task or "classification"
    kind = target.rpartition(".")[2]
    if target.startswith("lightning_distill.metrics.") and given in ("multi_label", "regression"):
        raise ValueError(
            f"metrics.{name} ({kind}) measures a softmax over classes or tokens, which "
            f"data.task={given} does not have. Choose what fits, as in "
            f"metrics=[{FITTING_METRICS[given]}]."
        )
    if not target.startswith("torchmetrics."):
        return
    if kind == "Perplexity":
        raise ValueError(
            f"metrics.{name} ({target}) takes whole rows at once, and its sums lose digits over "
            "many tokens. Choose metrics=[perplexity]."
        )
    task = None
    if getattr(get_object(target), "__module__", "").startswith("torchmetrics.regression"):
        task = "regression"
    elif kind.startswith("Multilabel"):
        task = "multi_label"
    elif kind.startswith(("Multiclass", "Binary")):
        task = "classification"
    if task == "classification" and given == "language_modelling" and node.get("num_classes"):
        # The next token is one of many classes.
        return
    if task not in (None, given) and given in FITTING_METRICS:
        raise ValueError(
            f"metrics.{name} ({kind}) measures data.task={task}, but the data has task={given}. "
            f"Choose what fits, as in metrics=[{FITTING_METRICS[given]}]."
        )


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """All metrics of `cfg.metrics`; settles `cfg.monitor` and `cfg.mode` where they are null."""
    metrics = {}
    for name, node in group(cfg, "metrics").items():
        if node is not None:
            check_metric_task(cfg, str(name), node)
            metrics[str(name)] = instantiate(node)
    if not metrics:
        raise ValueError("`metrics` is empty; choose some, as in metrics=[accuracy].")
    monitored = str(cfg.monitor or f"val/{next(iter(metrics))}")
    name = monitored.removeprefix("val/")
    losses = ["loss", *[str(n) for n, node in group(cfg, "criteria").items() if node is not None]]
    if not monitored.startswith("val/") or name not in [*metrics, *losses]:
        choices = ", ".join(f"val/{n}" for n in [*metrics, *losses])
        raise ValueError(f"`monitor` must be one of {choices}, got {monitored!r}.")
    mode = cfg.mode
    if mode is None:
        higher = getattr(metrics.get(name), "higher_is_better", name not in losses)
        mode = "min" if higher is False else "max"
    if mode not in ("min", "max"):
        raise ValueError(f"`mode` must be min or max, got {mode!r}.")
    cfg.monitor, cfg.mode = monitored, mode
    return metrics


def watching(cfg: DictConfig, metrics: Mapping[str, Metric], objective: Objective) -> DictConfig:
    """The configuration for a stage that may not measure what the run monitors.

    A teacher's training has no agreement, and a baseline no teacher term; they choose their best by
    the first metric they have.
    """
    watched = str(cfg.monitor).removeprefix("val/")
    if watched in metrics or watched in [*objective.terms, "loss"]:
        return cfg
    cfg = cfg.copy()
    cfg.monitor = f"val/{next(iter(metrics), 'loss')}"
    higher = getattr(metrics.get(cfg.monitor.removeprefix("val/")), "higher_is_better", False)
    cfg.mode = "min" if higher is False else "max"
    return cfg


def without_agreement(cfg: DictConfig) -> None:
    """Switch off what compares with a teacher, for jobs that have none."""
    for name, node in group(cfg, "metrics").items():
        target = node.get("_target_") if OmegaConf.is_dict(node) else None
        if target is not None and getattr(get_object(str(target)), "needs_teacher", False):
            cfg.metrics[name] = None
