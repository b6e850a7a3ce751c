"""Train a model on labels alone: a teacher to be, or a baseline."""

from pathlib import Path

from omegaconf import DictConfig

from ..run.check_callbacks import check_callbacks
from ..run.data import build_data, check_lengths
from ..run.debug import check_debug, debug
from ..run.first_lines import first_lines, say_memory
from ..run.labels import check_labels, check_measurable, on_labels
from ..run.learning_rate import settle_training
from ..run.metrics import build_metrics, without_agreement
from ..run.models import build_student, build_teacher
from ..run.objective import build_label_objective
from ..run.rehearse import rehearse
from ..run.report import report
from ..run.save import save_student, save_teacher_tokenizer
from ..run.sparsity import facts_of_zeros
from ..run.stage import say, train
from ..run.task import task_in
from ..run.trainer import check_validations, optimization
from ..training.module import DistillationModule


def finetune(cfg: DictConfig) -> float:
    """Train `cfg.student` on labels; returns its monitored metric on the test rows.

    The folder `student/` of the run can be given as teacher.path afterwards. Only terms of
    `cfg.criteria` that read no teacher take part; unlabelled rows are left out.
    """
    if cfg.get("stages"):
        raise ValueError(
            "`stages` are for job=distill, whose terms they choose from; job=finetune learns from "
            "labels alone. Leave out `stages`, or type job=distill teacher=null."
        )
    check_debug(cfg)
    directory = Path(str(cfg.output_dir))
    without_agreement(cfg)
    data = build_data(cfg, taught=False)
    check_measurable(data, "job=finetune")
    metrics = build_metrics(cfg, data)
    check_callbacks(cfg)
    say_memory(cfg, data, of_labels=True)
    teacher = None if cfg.teacher is None else build_teacher(cfg, data)
    student = build_student(cfg, data, teacher, of_labels=True)
    objective = build_label_objective(cfg, student)
    check_labels(data, objective)
    check_lengths(data, student=student, teacher=teacher)
    settle_training(cfg, student)
    rows = on_labels(data)
    task = task_in(cfg)
    tried = build_label_objective(cfg, student)
    rehearse(cfg, rows, DistillationModule(student, None, tried, metrics, task=task), metrics)
    check_validations(cfg, rows)
    module = DistillationModule(student, None, objective, metrics, **optimization(cfg), task=task)
    lines = first_lines(cfg, rows, metrics)
    if cfg.get("debug"):
        return debug(cfg, module, rows, lines)
    save_student(student, data, directory / "student", with_weights=False)
    save_teacher_tokenizer(data, directory)
    say("Model", f"on labels, with {', '.join(objective.terms)}")
    result = train(cfg, module, rows, directory, lines)
    save_student(module.student, data, directory / "student")
    facts = facts_of_zeros(cfg, module.student)
    report(cfg, directory, data, module, result, facts=facts)
    return result.metrics[str(cfg.monitor).removeprefix("val/")]
