"""The main job: teacher, student without it, student with it, and the comparison."""

import copy
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from ..run.budget import same_budget
from ..run.control import answers_to_other_rows, check_control
from ..run.debug import check_debug, debug_stages
from ..run.distillation import prepare
from ..run.first_lines import first_lines, say_memory
from ..run.labels import labelled_rows, on_labels
from ..run.metrics import watching
from ..run.objective import build_label_objective
from ..run.rehearse import rehearse
from ..run.report import BASELINE, CONTROL, report
from ..run.save import save_student, save_teacher_tokenizer
from ..run.stage import say, train
from ..run.stages import sparsity_of
from ..run.task import task_in
from ..run.train_stages import train_stages
from ..run.trainer import optimization
from ..training.module import DistillationModule
from ..training.weak_teacher import WeakTeacher


def distill(cfg: DictConfig, show: bool = True) -> float:
    """Distil `cfg.teacher` into `cfg.student`; returns the student's monitored metric on test.

    Writes the student that was best on the validation rows into `student/`, the comparison into
    `report.md` and `report.json`, and the curves into `curves.png`.

    Args:
        cfg: the run's configuration.
        show: whether the comparison is also printed.
    """
    check_debug(cfg)
    directory = Path(str(cfg.output_dir))
    made = prepare(cfg, partial(say_memory, cfg))
    data, metrics, stages = made.data, made.metrics, made.stages
    student, teacher = made.student, made.teacher
    alone = bool(cfg.baseline and any(stage.learns_of_teacher for stage in stages))
    # Why there is no student alone, for the user who expects one.
    facts = {}
    if alone and labelled_rows(data) == 0:
        alone, facts = False, {"student alone": "not trained, for no training row has a label"}
    if alone:
        labels_only = build_label_objective(cfg, student)
        tried = DistillationModule(student, None, labels_only, metrics, task=task_in(cfg))
        rehearse(cfg, on_labels(data), tried, metrics)
    # A run that is older than this key has no control.
    if control := bool(cfg.get("control")):
        check_control(cfg, stages, teacher, data)
    made.rehearse()
    weak_teacher = WeakTeacher(data)
    lines = first_lines(cfg, data, metrics, weak_teacher)
    if cfg.get("debug"):
        return debug_stages(stages, (student, teacher), metrics, data, lines)
    save_student(student, data, directory / "student", with_weights=False)
    save_teacher_tokenizer(data, directory)

    untrained = copy.deepcopy(student)
    models = student, teacher
    callbacks = [weak_teacher, *lines]
    trained = train_stages(cfg, stages, models, metrics, data, directory, callbacks)
    module, result = trained.module, trained.result
    save_student(module.student, data, directory / "student")
    for title, reason in facts.items():
        say(title.capitalize(), reason)
    beside = {}
    if control:
        assert teacher is not None
        say("Control", "the same training, with the teacher's answers to other rows")
        with answers_to_other_rows(teacher) as other:
            pair = copy.deepcopy(untrained), other
            again = train_stages(cfg, stages, pair, metrics, data, directory / CONTROL)
        beside[CONTROL] = again.module, again.result
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
        baseline = train(stage, baseline_module, rows, directory / BASELINE, **budget)
        beside[BASELINE] = baseline_module, baseline
    facts |= trained.facts
    report(cfg, directory, data, module, result, beside, facts, trained.curves, show)
    return result.metrics[str(cfg.monitor).removeprefix("val/")]
