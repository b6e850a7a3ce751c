"""Trainer, module and optimizer of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..objective.objective import Objective
from ..training.module import DistillationModule
from .call import group
from .task import task_in


def build_module(
    cfg: DictConfig,
    student: nn.Module,
    teacher: nn.Module | None,
    objective: Objective,
    metrics: Mapping[str, Metric],
) -> DistillationModule:
    """The module that `cfg.module` names, or a plain one."""
    # A run that is older than this key goes on as it was.
    node = cfg.get("module")
    make = DistillationModule if node is None else instantiate(node, _convert_="object")
    module = make(student, teacher, objective, metrics, **optimization(cfg))
    if isinstance(module, DistillationModule):
        # Not by an argument, which classes of a user's own may not pass on.
        module.task = module.task or task_in(cfg)
    else:
        raise ValueError(
            f"`module` must make a DistillationModule, got a {type(module).__name__} from "
            f"{node.get('_target_')}."
        )
    return module


def build_trainer(cfg: DictConfig, directory: Path, **changes: Any) -> L.Trainer:
    """A trainer that writes into `directory`, with the configured callbacks and loggers."""
    cfg = cfg.copy()
    cfg.output_dir = str(directory)
    callbacks = [instantiate(node) for node in group(cfg, "callbacks").values() if node is not None]
    loggers = [instantiate(node) for node in group(cfg, "logger").values() if node is not None]
    # Without these Lightning would put its own in the place of what was switched off.
    implied = {
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
    }
    options = {"callbacks": callbacks, "logger": loggers, **implied, **changes}
    try:
        return instantiate(cfg.trainer, **options)
    except InstantiationException as error:
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        where = [f"trainer.{name}={cfg.trainer.get(name)}" for name in ("accelerator", "devices")]
        raise ValueError(
            f"{' '.join(where)} does not work here: {error.__cause__} "
            "trainer.accelerator=auto trainer.devices=1 takes what this machine has."
        ) from error


def optimization(cfg: DictConfig) -> dict[str, Any]:
    """The factories of optimizer and scheduler, as arguments of the module."""
    return {
        "optimizer": instantiate(cfg.optimizer),
        "scheduler": None if cfg.scheduler is None else instantiate(cfg.scheduler),
    }
