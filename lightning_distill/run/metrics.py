"""The metrics of a run, and what it monitors."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torchmetrics import Metric

from ..data.data import DataFacts
from ..metrics.traits import best_mode, needs_teacher, reads_softmax
from ..objective.objective import Objective
from ..tasks import Classification, owner_of
from .call import call, group
from .follow_task import follow_task, packaged
from .monitor import settle_monitor
from .targets import find_target
from .task import task_in

log = logging.getLogger("lightning_distill")


def check_metric_task(cfg: DictConfig, name: str, node: Any) -> None:
    """Refuse a metric that measures something else than the task: it might be silently wrong."""
    task, target = task_in(cfg) or Classification(), _target(node)
    if target is None:
        return
    kind, cls = target.rpartition(".")[2], find_target(target)
    advice = f"Choose what fits, as in metrics=[{task.metrics[0]}]." if task.metrics else ""
    if reads_softmax(cls) and not task.has_softmax:
        raise ValueError(
            f"metrics.{name} ({kind}) measures a softmax over classes or tokens, which "
            f"data.task={task.name} does not have. {advice}"
        )
    if target.startswith("torchmetrics.") and kind == "Perplexity":
        raise ValueError(
            f"metrics.{name} ({target}) takes whole rows at once, and its sums lose digits over "
            "many tokens. Choose metrics=[perplexity]."
        )
    owner = owner_of(cls)
    if not task.takes_metric(owner, node):
        assert owner is not None
        raise ValueError(
            f"metrics.{name} ({kind}) measures data.task={owner.name}, but the data has "
            f"task={task.name}. {advice}"
        )


def _target(node: Any) -> str | None:
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    return None if target is None else str(target)


def build_metrics(cfg: DictConfig, data: Any = None) -> dict[str, Metric]:
    """All metrics of `cfg.metrics`; settles `cfg.monitor` and `cfg.mode` where they are null.

    Args:
        cfg: the run's configuration. Metrics by default give way to those of the task.
        data: the data module, whose `label_names` and `tokenizer` a metric is given that asks for
            them.

    Raises:
        ValueError: for metrics of another task, and for a monitor that is measured by none.
    """
    follow_task(cfg, "metrics", data)
    if DataFacts(data).unlabelled:
        without_labels(cfg)
    metrics = {}
    facts = DataFacts(data)
    more = {
        "label_names": facts.label_names,
        "references": facts.references,
        "tokenizer": facts.tokenizer,
    }
    more = {name: value for name, value in more.items() if value is not None}
    for name, node in group(cfg, "metrics").items():
        if node is None:
            continue
        check_metric_task(cfg, str(name), node)
        metrics[str(name)] = call(node, more, f"metrics.{name}")
    if not metrics:
        raise ValueError("`metrics` is empty; choose some, as in metrics=[accuracy].")
    settle_monitor(cfg, metrics)
    return metrics


def watching(cfg: DictConfig, metrics: Mapping[str, Metric], objective: Objective) -> DictConfig:
    """The configuration for a stage that may not measure what the run monitors.

    A teacher's training has no agreement, and a baseline no teacher term; they choose their best by
    the first metric they have.
    """
    watched = str(cfg.monitor).removeprefix("val/")
    if watched in metrics or watched in [*objective.terms, *objective.sums, "loss"]:
        return cfg
    cfg = cfg.copy()
    cfg.monitor = f"val/{next(iter(metrics), 'loss')}"
    cfg.mode = best_mode(metrics.get(cfg.monitor.removeprefix("val/")), "min")
    return cfg


def without_labels(cfg: DictConfig) -> None:
    """Leave only what compares with a teacher, the agreement at least, where no row has a label."""
    nodes = group(cfg, "metrics")
    kept = {
        str(name): node
        for name, node in nodes.items()
        if (target := _target(node)) is not None and needs_teacher(find_target(target), node)
    }
    left_out = [str(name) for name, node in nodes.items() if node is not None and name not in kept]
    if left_out:
        log.info("Metrics: no row has a label, so %s is not measured", ", ".join(left_out))
    with open_dict(cfg):
        cfg.metrics = kept or {"agreement": packaged("metrics", "agreement")}


def without_agreement(cfg: DictConfig) -> None:
    """Switch off what compares with a teacher, for jobs that have none."""
    for name, node in group(cfg, "metrics").items():
        target = _target(node)
        if target is not None and needs_teacher(find_target(target), node):
            cfg.metrics[name] = None
