"""Try on one batch what training will do, so that nothing is found out when hours are spent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torchmetrics import Metric

from ..metrics import Samples
from ..metrics.traits import needs_teacher, reads_texts, sources_of
from ..models.batch import labels_of
from ..models.modes import in_eval_mode
from ..models.written_texts import check_writes
from ..training.metric_sources import feed_sources, sources_of_metrics
from ..training.module import DistillationModule
from ..training.scheduling import scheduler_config
from ..training.values import student_outputs
from .sparsity import build_sparsity
from .trainer import optimization


def rehearse(
    cfg: DictConfig,
    data: Any,
    module: DistillationModule,
    metrics: Mapping[str, Metric],
    with_objective: bool = True,
) -> None:
    """Try objective, metrics, optimizer and scheduler on one batch; the models stay as they are.

    Args:
        cfg: the run's configuration.
        data: a data module that is set up.
        module: of student, teacher and objective, as they will be trained. The objective is used
            up: the module of the training needs one of its own.
        metrics: those of the run.
        with_objective: false where the training begins at once, and tries it on its own device.

    Raises:
        ValueError: naming the part of the configuration that does not work.
    """
    for sparsity in build_sparsity(cfg):
        sparsity.check(module.student)
    if with_objective:
        # As the trainer's data will be known to it.
        module.tried_data = data
        with _unless_it_asks_for_a_trainer():
            module.prepare(next(iter(data.train_dataloader())))
    with _unless_it_asks_for_a_trainer():
        _try_metrics(module, next(iter(data.val_dataloader()), None), metrics)
    _try_optimization(cfg, module.student)


@contextmanager
def _unless_it_asks_for_a_trainer() -> Iterator[None]:
    """A module of the user's own may; it is tried when there is one."""
    try:
        yield
    except RuntimeError as error:
        if "is not attached to a `Trainer`" not in str(error):
            raise


@torch.no_grad()
def _try_metrics(module: DistillationModule, batch: Any, metrics: Mapping[str, Metric]) -> None:
    labels = None if batch is None else labels_of(batch)
    if labels is None:
        return
    with in_eval_mode(module.student):
        named = sources_of_metrics(metrics.values(), with_teacher=False)
        outputs, values = student_outputs(module, batch, named)
        predicted = module.predictions(outputs)
    if labels.shape[:1] != predicted.shape[:1]:
        return
    for name, metric in metrics.items():
        if reads_texts(metric):
            check_writes(module.student, f"metrics.{name}")
        if needs_teacher(metric) or reads_texts(metric):
            continue
        try:
            if sources_of(metric):
                feed_sources(metric.clone(), values, batch, None)
                continue
            for samples in Samples.of(batch, predicted, metrics=[metric], task=module.task):
                samples.feed(metric.clone())
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            raise ValueError(
                f"metrics.{name} ({type(metric).__name__}) does not fit predictions of shape "
                f"{tuple(predicted.shape)} and labels of shape {tuple(labels.shape)}: "
                f"{' '.join(str(error).split())}"
            ) from error


def _try_optimization(cfg: DictConfig, student: nn.Module) -> None:
    parameters = [p for p in student.parameters() if p.requires_grad]
    if not parameters:
        # The module says what that means.
        return
    factories = optimization(cfg)
    optimizer = _made("optimizer", cfg.optimizer, factories["optimizer"], parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"`optimizer` must make a torch.optim.Optimizer, got a {type(optimizer).__name__}."
        )
    scheduler = factories["scheduler"]
    if scheduler is not None:
        watched = str(cfg.monitor), str(cfg.mode)
        _made("scheduler", cfg.scheduler, scheduler_config, scheduler, optimizer, watched)


def _made(name: str, node: Any, factory: Any, *arguments: Any, **more: Any) -> Any:
    try:
        return factory(*arguments, **more)
    except Exception as error:
        settings: Any = OmegaConf.to_container(node, resolve=True)
        shown = ", ".join(f"{k}={v}" for k, v in settings.items() if not k.startswith("_"))
        raise ValueError(
            f"`{name}` ({settings.get('_target_')}) does not work with {shown}: "
            f"{type(error).__name__}: {error}"
        ) from error
