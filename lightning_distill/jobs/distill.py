"""The main job: teacher, student without it, student with it, and the comparison."""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..objective.objective import Objective
from ..run.budget import same_budget
from ..run.data import build_data, check_lengths
from ..run.labels import check_labels, labelled_rows, on_labels
from ..run.learning_rate import settle_training
from ..run.metrics import build_metrics, watching, without_agreement
from ..run.models import build_student, build_teacher
from ..run.objective import build_label_objective, build_objective
from ..run.rehearse import rehearse
from ..run.report import report
from ..run.save import save_student
from ..run.stage import say, train
from ..run.stages import check_stages, sparsity_of, stages_of
from ..run.task import task_in
from ..run.train_stages import rehearse_stages, train_stages
from ..run.trainer import optimization
from ..run.vocabularies import check_vocabularies, without_common_tokens
from ..training.module import DistillationModule
from ..training.weak_teacher import WeakTeacher


def distill(cfg: DictConfig) -> float:
    """Distil `cfg.teacher` into `cfg.student`; returns the student's monitored metric on test.

    Writes the student that was best on the validation rows into `student/`, the comparison into
    `report.md` and `report.json`, and the curves into `curves.png`.
    """
    directory = Path(str(cfg.output_dir))
    if cfg.teacher is None:
        without_agreement(cfg)
    check_stages(cfg)
    data = build_data(cfg)
    without_common_tokens(cfg, data)
    metrics = build_metrics(cfg, data)
    # Of all stages, if there are several.
    objective = build_objective(cfg)
    _check_teacher(cfg, objective)
    check_vocabularies(data, objective)
    check_labels(data, objective)
    teacher = None
    if cfg.teacher is not None:
        teacher = build_teacher(cfg, data, partial(_rehearse_with, cfg, data, metrics))
    # The same student, whether the teacher was trained just now or found: a new head is drawn.
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student, teacher=teacher)
    settle_training(cfg, student)
    stages = stages_of(cfg, student)
    alone = bool(cfg.baseline and any(stage.learns_of_teacher for stage in stages))
    # Why there is no student alone, for the user who expects one.
    facts = {}
    if alone and labelled_rows(data) == 0:
        alone, facts = False, {"student alone": "not trained, for no training row has a label"}
    if alone:
        labels_only = build_label_objective(cfg, student)
        rehearse(cfg, on_labels(data), student, None, labels_only, metrics)
    rehearse_stages(stages, data, student, teacher, metrics, with_first=False)
    save_student(student, data, directory / "student", with_weights=False)

    untrained = copy.deepcopy(student)
    models = student, teacher
    trained = train_stages(cfg, stages, models, metrics, data, directory, [WeakTeacher(data)])
    module, result = trained.module, trained.result
    save_student(module.student, data, directory / "student")
    for title, reason in facts.items():
        say(title.capitalize(), reason)
    baseline_module, baseline = None, None
    if alone:
        say("Student alone", f"the same {result.steps} steps, on labelled rows")
        labels_only = build_label_objective(cfg, untrained)
        stage = watching(cfg, metrics, labels_only)
        stage.sparsity = sparsity_of(stages)
        baseline_module = DistillationModule(
            untrained, teacher, labels_only, metrics, **optimization(stage), task=task_in(cfg)
        )
        rows = on_labels(data)
        # The very same batches in the same epochs, unless it has stages.
        same = rows is data and len(stages) == 1
        budget = same_budget(result.steps, result.validations, same)
        baseline = train(stage, baseline_module, rows, directory / "baseline", **budget)
    facts |= trained.facts
    curves = trained.curves
    report(cfg, directory, data, module, result, baseline_module, baseline, facts, curves)
    return result.metrics[str(cfg.monitor).removeprefix("val/")]


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
