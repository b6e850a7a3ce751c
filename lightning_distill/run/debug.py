"""Try a run on one batch of training and one of validation, and keep nothing of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..checks.shapes import ShowsShapes
from ..training.distill import fit
from ..training.module import DistillationModule
from .objective import build_objective
from .sparsity import build_sparsity
from .stage import make_ready, say
from .stages import Stage
from .trainer import build_module, build_trainer
from .without_keeping import without_keeping


def check_debug(cfg: DictConfig) -> None:
    """Refuse to go on with a run that was only tried.

    Raises:
        ValueError: saying what to type.
    """
    if cfg.get("debug") and cfg.resume:
        raise ValueError(
            f"resume={cfg.resume}: this run was made with debug=true, which keeps nothing to go on "
            "from. Start a new run with the same words, without debug=true."
        )


def debug_stages(
    stages: Sequence[Stage],
    models: tuple[nn.Module, nn.Module | None],
    metrics: Mapping[str, Metric],
    data: Any,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Try each stage of a run; returns the monitored metric of the last one.

    Args:
        stages: of the run.
        models: student and teacher.
        metrics: those of the run.
        data: a LightningDataModule.
        callbacks: of the first stage, besides those of its configuration.
    """
    student, teacher = models
    teacher, value = without_keeping(teacher), math.nan
    for stage in stages:
        title = f"Stage {stage.number} of {stage.of}, {stage.name}" if stage.name else ""
        with stage.trains(student):
            objective = build_objective(stage.cfg)
            module = build_module(stage.cfg, student, teacher, objective, metrics)
            more = callbacks if stage.number == 1 else ()
            value = debug(stage.cfg, module, stage.rows(data), more, title)
    return value


def debug(
    cfg: DictConfig,
    module: DistillationModule,
    data: Any,
    callbacks: Sequence[Callback] = (),
    title: str = "",
) -> float:
    """Take one step and one look at validation rows, with anomalies of the gradient detected.

    Args:
        cfg: the run's configuration.
        module: trained by one step.
        data: a LightningDataModule.
        callbacks: besides those of the configuration.
        title: of the table of shapes.

    Returns:
        The monitored metric; NaN where it was not measured.
    """
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    make_ready(cfg, module)
    directory = Path(str(cfg.output_dir))
    trainer = build_trainer(cfg, directory, fast_dev_run=True, detect_anomaly=True)
    # Nothing shall be found by a run that goes on, and a bar of one batch says nothing.
    kept: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kept[:] = [c for c in kept if not isinstance(c, Checkpoint | ProgressBar)]
    kept[:0] = [*callbacks, *build_sparsity(cfg), ShowsShapes(title)]
    fit(trainer, module, datamodule=data)
    if trainer.interrupted:
        raise KeyboardInterrupt
    measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
    say("Debug", f"one batch of training and one of validation: {shown}")
    return measured.get(str(cfg.monitor), math.nan)
