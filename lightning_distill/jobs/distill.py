"""The main job: teacher, student without it, student with it, and the comparison."""

import copy
import math
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import nn

from ..module import DistillationModule
from ..report import Comparison, draw_curves, latency_ms, parameter_count, Row, size_mb
from .build import (
    build_data,
    build_label_objective,
    build_metrics,
    build_objective,
    build_student,
    build_teacher,
    check_lengths,
    optimization,
    watching,
)
from .save import save_student
from .stage import Result, say, train


def distill(cfg: DictConfig) -> float:
    """Distil `cfg.teacher` into `cfg.student`; returns the student's monitored metric on test.

    Writes the student that was best on the validation rows into `student/`, the comparison into
    `report.md` and `report.json`, and the curves into `curves.png`.
    """
    directory = Path(str(cfg.output_dir))
    data = build_data(cfg)
    metrics = build_metrics(cfg)
    objective = build_objective(cfg)
    _check_drop(cfg)
    teacher = build_teacher(cfg, data)
    student = build_student(cfg, data, teacher)
    check_lengths(data, student=student, teacher=teacher)
    save_student(student, data, directory / "student", with_weights=False)

    untrained = copy.deepcopy(student)
    module = DistillationModule(student, teacher, objective, metrics, **optimization(cfg))
    say("Student", f"learning from {', '.join(objective.terms)}")
    result = train(cfg, module, data, directory)
    save_student(module.student, data, directory / "student")
    name = str(cfg.monitor).removeprefix("val/")
    baseline_module, baseline = None, None
    if cfg.baseline and objective.sources("teacher"):
        say("Student alone", f"the same {result.steps} steps, on labelled rows")
        labels_only = build_label_objective(cfg)
        baseline_module = DistillationModule(
            untrained, teacher, labels_only, metrics, **optimization(cfg)
        )
        labelled = data.replace(drop_unlabelled=True) if hasattr(data, "replace") else data
        budget = same_budget(cfg, result, labelled)
        stage = watching(cfg, metrics, labels_only)
        baseline = train(stage, baseline_module, labelled, directory / "baseline", **budget)
    report(cfg, directory, data, module, result, baseline_module, baseline)
    return result.metrics[name]


def same_budget(cfg: DictConfig, result: Result, data: Any) -> dict[str, Any]:
    """Trainer arguments for as many steps and validations as another model had.

    Equally many validations, because the best of many checkpoints is better than of few.
    """
    accumulated = cfg.trainer.accumulate_grad_batches
    per_epoch = math.ceil(len(data.train_dataloader()) / accumulated)
    return {
        "max_steps": result.steps,
        "max_epochs": math.ceil(result.steps / per_epoch),
        "val_check_interval": max(result.steps * accumulated // max(result.epochs, 1), 1),
        "check_val_every_n_epoch": None,
    }


def _check_drop(cfg: DictConfig) -> None:
    if cfg.metric_drop not in ("relative", "absolute"):
        raise ValueError(f"`metric_drop` must be relative or absolute, got {cfg.metric_drop!r}.")
    if cfg.max_metric_drop is not None and cfg.max_metric_drop < 0:
        raise ValueError(f"`max_metric_drop` must not be negative, got {cfg.max_metric_drop}.")


@rank_zero_only
def report(
    cfg: DictConfig,
    directory: Path,
    data: Any,
    module: DistillationModule,
    result: Result,
    baseline_module: DistillationModule | None = None,
    baseline: Result | None = None,
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
        return Row(
            title,
            parameter_count(model),
            size_mb(model),
            latency_ms(forward, batch),
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
        facts=_facts(cfg, data, result),
    )
    comparison.show()
    comparison.save(directory)
    runs = {"distilled" if teacher is not None else "student": directory / "metrics.csv"}
    if alone is not None:
        runs["student alone"] = directory / "baseline" / "metrics.csv"
    draw_curves(runs, directory / "curves.png")
    say("Written", f"{_short(directory)}: student/, report.md, curves.png, metrics.csv")


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
