"""The main job: teacher, student without it, student with it, and the comparison."""

import copy
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..module import DistillationModule
from ..objective import Objective
from ..report import (
    Comparison,
    draw_curves,
    latency_ms,
    parameter_count,
    Profile,
    Row,
    size_mb,
    write_samples,
)
from ..teachers import CachedTeacher
from .build import (
    build_data,
    build_label_objective,
    build_metrics,
    build_module,
    build_objective,
    build_student,
    build_teacher,
    check_lengths,
    optimization,
    watching,
    without_agreement,
)
from .check import check_number
from .rehearse import rehearse
from .save import save_student
from .stage import Result, say, train
from .vocabularies import check_vocabularies, without_common_tokens


def distill(cfg: DictConfig) -> float:
    """Distil `cfg.teacher` into `cfg.student`; returns the student's monitored metric on test.

    Writes the student that was best on the validation rows into `student/`, the comparison into
    `report.md` and `report.json`, and the curves into `curves.png`.
    """
    directory = Path(str(cfg.output_dir))
    _check_drop(cfg)
    if cfg.teacher is None:
        without_agreement(cfg)
    data = build_data(cfg)
    without_common_tokens(cfg, data)
    metrics = build_metrics(cfg)
    objective = build_objective(cfg)
    _check_teacher(cfg, objective)
    check_vocabularies(data, objective)
    check_labels(data, objective)
    teacher = None
    if cfg.teacher is not None:
        teacher = build_teacher(cfg, data, partial(_rehearse_with, cfg, data, metrics))
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student, teacher=teacher)
    alone = bool(cfg.baseline and objective.sources("teacher"))
    # Why there is no student alone, for the user who expects one.
    facts = {}
    if alone and labelled_rows(data) == 0:
        alone, facts = False, {"student alone": "not trained, for no training row has a label"}
    if alone:
        labels_only = build_label_objective(cfg, student)
        rehearse(cfg, on_labels(data), student, None, labels_only, metrics)
    else:
        rehearse(cfg, data, student, teacher, build_objective(cfg), metrics, with_objective=False)
    save_student(student, data, directory / "student", with_weights=False)

    untrained = copy.deepcopy(student)
    module = build_module(cfg, student, teacher, objective, metrics)
    say("Student", f"learning from {', '.join(objective.terms)}")
    result = train(cfg, module, data, directory)
    save_student(module.student, data, directory / "student")
    for title, reason in facts.items():
        say(title.capitalize(), reason)
    baseline_module, baseline = None, None
    if alone:
        say("Student alone", f"the same {result.steps} steps, on labelled rows")
        labels_only = build_label_objective(cfg, untrained)
        baseline_module = DistillationModule(
            untrained, teacher, labels_only, metrics, **optimization(cfg)
        )
        rows = on_labels(data)
        budget = same_budget(cfg, result, rows)
        stage = watching(cfg, metrics, labels_only)
        baseline = train(stage, baseline_module, rows, directory / "baseline", **budget)
    report(cfg, directory, data, module, result, baseline_module, baseline, facts)
    return result.metrics[str(cfg.monitor).removeprefix("val/")]


def same_budget(cfg: DictConfig, result: Result, data: Any) -> dict[str, Any]:
    """Trainer arguments for as many steps and validations as another model had.

    Equally many validations, because the best of many checkpoints is better than of few.
    """
    if getattr(data, "streaming", False):
        # Nobody knows how many batches an epoch has; it ends where it did.
        return {"max_steps": result.steps, "max_epochs": max(result.epochs, 1)}
    accumulated = cfg.trainer.accumulate_grad_batches
    per_epoch = math.ceil(len(data.train_dataloader()) / accumulated)
    return {
        "max_steps": result.steps,
        "max_epochs": math.ceil(result.steps / per_epoch),
        "val_check_interval": max(result.steps * accumulated // max(result.epochs, 1), 1),
        "check_val_every_n_epoch": None,
    }


def _rehearse_with(
    cfg: DictConfig, data: Any, metrics: Mapping[str, Metric], teacher: nn.Module
) -> None:
    """Try the whole distillation with a teacher that has learnt nothing yet."""
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student)
    rehearse(cfg, data, student, teacher, build_objective(cfg), metrics)


def labelled_rows(data: Any) -> int | None:
    """How many training rows keep their label; `None` if the data does not say."""
    return data.counts().get("labelled train rows") if hasattr(data, "counts") else None


def on_labels(data: Any) -> Any:
    """The data without its unlabelled training rows, where it can leave them out."""
    drops = hasattr(data, "replace") and hasattr(data, "drop_unlabelled")
    return data.replace(drop_unlabelled=True) if drops else data


def check_labels(data: Any, objective: Objective) -> None:
    """Refuse to train on labels alone where there are none.

    Raises:
        ValueError: naming the terms, whose losses would all be zero.
    """
    if labelled_rows(data) != 0 or objective.sources("teacher"):
        return
    names = [str(source) for source in objective.sources("batch")]
    if "batch.labels" in names or "batch.label" in names:
        raise ValueError(
            f"No training row has a label, and {', '.join(objective.terms)} learns from labels "
            "alone. Is data.label the right column? Without labels take a teacher and a term that "
            "reads it, as in criteria=[soft_target]."
        )


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


def _check_drop(cfg: DictConfig) -> None:
    if cfg.metric_drop not in ("relative", "absolute"):
        raise ValueError(f"`metric_drop` must be relative or absolute, got {cfg.metric_drop!r}.")
    check_number("`max_metric_drop`", cfg.max_metric_drop, least=0)


@rank_zero_only
def report(
    cfg: DictConfig,
    directory: Path,
    data: Any,
    module: DistillationModule,
    result: Result,
    baseline_module: DistillationModule | None = None,
    baseline: Result | None = None,
    facts: dict[str, str] | None = None,
) -> None:
    """Show and write the comparison and the curves of a run."""
    name, higher_is_better = _compared(cfg, module)
    batch = _one_row(data)
    module.eval()
    terms = set(module.objective.terms) | {"loss"}

    def row(title: str, model: nn.Module, metrics: dict[str, float], forward: Any) -> Row:
        kept = {
            n: v
            for n, v in metrics.items()
            if (n not in terms or n == name) and n != "agreement" and not n.startswith("teacher_")
        }
        # One that is not there is as large as it was, and takes no time.
        there = None if isinstance(model, CachedTeacher) else model
        known = model.about if isinstance(model, CachedTeacher) else {}
        return Row(
            title,
            int(known["parameters"]) if there is None else parameter_count(there),
            float(known["size_mb"]) if there is None else size_mb(there),
            None if there is None else latency_ms(forward, batch),
            kept,
            metrics.get("agreement"),
        )

    teacher = None
    if module.teacher is not None:
        of_teacher = {
            n.removeprefix("teacher_"): v
            for n, v in result.metrics.items()
            if n.startswith("teacher_")
        }
        if name in of_teacher:
            teacher = row("teacher", module.teacher, of_teacher, module.teacher_forward)
    alone = None
    if baseline_module is not None and baseline is not None:
        terms |= set(baseline_module.objective.terms)
        alone = row(
            "student alone",
            baseline_module.eval().student,
            baseline.metrics,
            baseline_module.student_forward,
        )
    title = "student distilled" if module.objective.sources("teacher") else "student"
    comparison = Comparison(
        metric=name,
        higher_is_better=higher_is_better,
        student=row(title, module.student, result.metrics, module.student_forward),
        teacher=teacher,
        baseline=alone,
        max_drop=cfg.max_metric_drop,
        relative=cfg.metric_drop == "relative",
        facts={**_facts(cfg, data, result), **(facts or {})},
    )
    comparison.show()
    runs = {"distilled" if teacher is not None else "student": directory / "metrics.csv"}
    if alone is not None:
        runs["student alone"] = directory / "baseline" / "metrics.csv"
    draw_curves(runs, directory / "curves.png")
    comparison.save(directory)
    if cfg.task == "language_modelling":
        alone_too = {} if baseline_module is None else {"student alone": baseline_module.student}
        write_samples(directory, data, {**alone_too, title: module.student}, module.teacher)
    profile = Profile.load(directory) if cfg.get("profile") else None
    if profile is not None:
        profile.show()
        profile.append_to(directory / "report.md")
    # Without a logger there are neither curves nor a table of them.
    names = ("report.md", "curves.png", "metrics.csv", "profile.png")
    written = ["student/", *(name for name in names if (directory / name).is_file())]
    say("Written", f"{_short(directory)}: {', '.join(written)}")


def _compared(cfg: DictConfig, module: DistillationModule) -> tuple[str, bool]:
    """The metric that the report compares, and whether more of it is better."""
    name = str(cfg.monitor).removeprefix("val/")
    metrics = dict(module.metrics["test"].items())  # type: ignore[union-attr,operator]
    comparable = [n for n, m in metrics.items() if not getattr(m, "needs_teacher", False)]
    if name in comparable or not comparable:
        return name, cfg.mode == "max"
    # Losses are made of other terms in each model, and nobody agrees with the teacher as it does.
    return comparable[0], getattr(metrics[comparable[0]], "higher_is_better", True) is not False


def _facts(cfg: DictConfig, data: Any, result: Result) -> dict[str, str]:
    facts = {"seed": str(cfg.seed), "training": f"{result.steps} steps in {result.seconds:.0f} s"}
    if hasattr(data, "counts"):
        facts |= {name: f"{count:,}" for name, count in data.counts().items()}
    return facts


def _one_row(data: Any) -> Any:
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    if not isinstance(batch, dict):
        return tuple(t[:1] for t in batch)
    return {
        k: ({n: t[:1] for n, t in v.items()} if isinstance(v, dict) else v[:1])
        for k, v in batch.items()
    }


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
