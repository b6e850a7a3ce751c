"""What a distillation is made of, tried on one batch before anything is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..objective.objective import Objective
from .data import build_data, check_lengths
from .labels import check_labels
from .learning_rate import settle_training
from .metrics import build_metrics, without_agreement
from .models import build_student, build_teacher
from .objective import build_objective
from .stage_monitor import settle_stages
from .stage_settings import check_stages
from .stages import Stage, stages_of
from .train_stages import rehearse_stages
from .vocabularies import check_vocabularies, without_common_tokens


@dataclass
class Distillation:
    """The objects of a run, before its first step.

    Attributes:
        data: the data module, set up.
        metrics: by name.
        student: the model that is trained.
        teacher: the one that it learns from, if there is any.
        stages: the trainings of the student.
    """

    data: Any
    metrics: dict[str, Metric]
    student: nn.Module
    teacher: nn.Module | None
    stages: list[Stage]

    def rehearse(self) -> None:
        """Try what the first stage does not try itself.

        Raises:
            ValueError: naming what of the configuration does not work.
        """
        models = self.student, self.teacher
        rehearse_stages(self.stages, self.data, *models, self.metrics, with_first=False)


def prepare(cfg: DictConfig, before_models: Callable[[Any], None] | None = None) -> Distillation:
    """Make what `cfg` names; what the data and the models decide is settled in `cfg`.

    A teacher that is yet to be trained is trained here.

    Args:
        cfg: the run's configuration.
        before_models: is given the data, when no model is loaded yet.

    Raises:
        ValueError: naming what of the configuration does not work.
    """
    if cfg.teacher is None:
        without_agreement(cfg)
    check_stages(cfg)
    data = build_data(cfg)
    without_common_tokens(cfg, data)
    metrics = build_metrics(cfg, data)
    settle_stages(cfg, metrics)
    # Of all stages, if there are several.
    objective = build_objective(cfg)
    _check_teacher(cfg, objective)
    check_vocabularies(data, objective)
    check_labels(data, objective)
    if before_models is not None:
        before_models(data)
    teacher = None
    if cfg.teacher is not None:
        teacher = build_teacher(cfg, data, partial(_rehearse_with, cfg, data, metrics))
    # The same student, whether the teacher was trained just now or found: a new head is drawn.
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student, teacher=teacher)
    settle_training(cfg, student)
    return Distillation(data, metrics, student, teacher, stages_of(cfg, student))


def _rehearse_with(
    cfg: DictConfig, data: Any, metrics: Mapping[str, Metric], teacher: nn.Module
) -> None:
    """Try the whole distillation with a teacher that has learnt nothing yet."""
    student = build_student(cfg, data, teacher, rehearsal=True)
    check_lengths(data, student=student)
    cfg = cfg.copy()
    settle_training(cfg, student, write=False)
    rehearse_stages(stages_of(cfg, student), data, student, teacher, metrics)


def _check_teacher(cfg: DictConfig, objective: Objective) -> None:
    if cfg.teacher is None and objective.sources("teacher"):
        readers = [
            name
            for name, term in objective.terms.items()
            if any(source.role == "teacher" for source in term.sources())  # type: ignore[operator]
        ]
        raise ValueError(
            f"{', '.join(readers)} reads a teacher, and there is none: choose one, as in "
            "teacher=pretrained teacher.path=DIR, or only terms without, as in "
            "criteria=[hard_label]."
        )
