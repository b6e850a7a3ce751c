"""One trial of a search: a run of its own, in a folder of its own."""

import logging
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..data.some_rows import typical_batches
from ..models.modes import in_eval_mode
from ..overrides import as_override, key_of
from ..report import latency_ms
from ..search import EndEarly, StudyOnDisk
from ..search_plan import LATENCY, METRIC, Plan, SIZE, SIZE_MB
from .budget import EvenlySpaced
from .directory import begin_trial
from .distillation import Distillation, prepare
from .inner_run import logged_in
from .objective import build_objective
from .save import save_student, save_teacher_tokenizer
from .student_as_used import student_as_used
from .train_stages import train_stages
from .trainer import build_module

log = logging.getLogger("lightning_distill")

JOB = "lightning_distill.jobs.distill"
# What a trial takes most of its room with, and what can be made again by its command.
WEIGHTS = ("checkpoints", "student")
NOT_OF_A_TRIAL = ("job", "resume", "output_dir")


def trial_config(
    cfg: DictConfig, plan: Plan, values: Mapping[str, Any], teacher: Any = None
) -> DictConfig:
    """The configuration of a trial: a distillation like any other, with what it tries.

    Args:
        cfg: that of the search.
        plan: the search.
        values: what is tried, by the keys of the options.
        teacher: the configuration of the teacher of all trials, if it is another than the search's.
    """
    trial = cfg.copy()
    with open_dict(trial):
        trial.job = {"_target_": JOB}
        trial.resume = None
        trial.baseline, trial.control, trial.profile = False, False, False
        if teacher is not None:
            trial.teacher = teacher
    for key, value in values.items():
        OmegaConf.update(trial, key, value, merge=False)
    if plan.epochs is not None:
        budget: dict[str, Any] = {"max_epochs": plan.epochs, "max_steps": -1}
    else:
        budget = {"max_epochs": -1, "max_steps": plan.steps}
        # Where the epochs end does not matter.
        budget |= {"val_check_interval": 1, "check_val_every_n_epoch": None}
    for name, value in budget.items():
        OmegaConf.update(trial, f"trainer.{name}", value, force_add=True)
    return trial


def train_trial(
    cfg: DictConfig, study: StudyOnDisk, trial: Any, directory: Path
) -> dict[str, float]:
    """Train a trial from its beginning, and keep its student; returns its values by objective.

    Args:
        cfg: as [`trial_config`][] makes it.
        study: of the search.
        trial: of Optuna.
        directory: of the trial; what a trial that was cut off has left there is removed.

    Raises:
        TrialPruned: if it ended early.
        ValueError: for a student that cannot be made or trained.
    """
    shutil.rmtree(directory, ignore_errors=True)
    start = time.perf_counter()
    with logged_in(directory):
        try:
            begin_trial(cfg, directory)
            made = prepare(cfg)
            made.rehearse()
            found = _size_and_speed(cfg, made)
            for name, value in found.items():
                trial.set_user_attr(name, value)
            early = EndEarly(study, trial, str(cfg.monitor), str(cfg.mode))
            plan = study.plan
            even = [] if plan.steps is None else [EvenlySpaced(plan.validations, plan.steps)]
            models, callbacks = (made.student, made.teacher), [*even, early]
            rest = (made.metrics, made.data, directory, callbacks)
            trained = train_stages(cfg, made.stages, models, *rest)
            if not early.values:
                raise ValueError(f"{cfg.monitor} was not measured: the validation has no rows.")
            metric = early.of_weights(trained.result.kept_step)
            save_student(trained.module.student, made.data, directory / "student")
            save_teacher_tokenizer(made.data, directory)
        finally:
            trial.set_user_attr("seconds", time.perf_counter() - start)
    return {**found, METRIC: metric}


def _size_and_speed(cfg: DictConfig, made: Distillation) -> dict[str, float]:
    """What is known of a student before it is trained."""
    module = build_module(cfg, made.student, made.teacher, build_objective(cfg), made.metrics)
    made.data.setup("test")
    with in_eval_mode(made.student):
        (row,) = typical_batches(made.data, "test", (1,))
        used = student_as_used(module)
        speed = latency_ms(used.forward, row)
    return {SIZE: used.parameters, SIZE_MB: used.size_mb, LATENCY: speed}


def drop_weights(directory: Path) -> None:
    """Remove the weights of a trial; its configuration, curves and result stay."""
    for name in WEIGHTS:
        shutil.rmtree(directory / name, ignore_errors=True)


def command_of(words: Sequence[str], values: Mapping[str, Any]) -> str:
    """The command that trains a trial to the end.

    Args:
        words: as `run.typed.typed_words` has found them.
        values: what the trial has tried, by the keys of the options.
    """
    kept = [shlex.quote(word) for word in words if key_of(word) not in values]
    return " ".join(["lightning-distill", *kept, *(as_override(k, v) for k, v in values.items())])
