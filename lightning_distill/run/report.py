"""The report of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import nn

from ..data.data import DataFacts, defines
from ..metrics.traits import best_mode, needs_teacher
from ..models.fingerprint import fingerprint
from ..report import (
    AGREEMENT,
    Comparison,
    differing,
    draw_curves,
    intervals_of,
    predictions_of,
    Profile,
    Row,
    write_page,
    write_row_texts,
    write_samples,
)
from ..training.module import DistillationModule
from .inference_costs import Measuring
from .intervals import of_teacher
from .resuming import record_of
from .similar_layers import write_similar_layers
from .stage import Result, say
from .student_as_used import student_as_used
from .task import task_in
from .typed import typed_command
from .versions import versions_here

# Students beside the distilled one, by the folders of their trainings within a run.
BASELINE, CONTROL = "baseline", "control"
TITLES = {BASELINE: "student alone", CONTROL: "taught other rows"}


@rank_zero_only
def report(
    cfg: DictConfig,
    directory: Path,
    data: Any,
    module: DistillationModule,
    result: Result,
    beside: Mapping[str, tuple[DistillationModule, Result]] | None = None,
    facts: dict[str, str] | None = None,
    curves: Sequence[tuple[int, Path]] = (),
    show: bool = True,
) -> None:
    """Show and write the comparison and the curves of a run.

    Args:
        cfg: its configuration.
        directory: where to.
        data: the data module.
        module: with the student's best weights.
        result: of the student.
        beside: further students with their results, by `BASELINE` and `CONTROL`.
        facts: further lines by heading.
        curves: of each stage the number of steps before it, and its `metrics.csv`.
        show: whether it is also printed.
    """
    name, higher_is_better = _compared(cfg, module)
    measuring = Measuring(data)
    module.eval()
    predictions = predictions_of(directory)
    terms = {*module.objective.terms, *module.objective.sums, "loss"}

    def row(
        title: str,
        model: Mapping[str, Any],
        metrics: Mapping[str, float],
        of: tuple[DistillationModule, nn.Module | None, Any],
        parts: Mapping[str, float] | None = None,
        trained: Result | None = None,
        intervals: Mapping[str, Sequence[float]] | None = None,
    ) -> Row:
        kept = {
            n: v
            for n, v in metrics.items()
            if n == name or (n not in terms and n != AGREEMENT and not n.startswith("teacher_"))
        }
        costs = asdict(measuring.costs(*of))
        return Row(
            title,
            int(model["parameters"]),
            float(model["size_mb"]),
            costs.pop("latency_ms"),
            kept,
            # Where it decides, it is the metric.
            None if name == AGREEMENT else metrics.get(AGREEMENT),
            parts or {},
            None if trained is None else trained.best,
            "" if trained is None else trained.best_mode,
            fingerprint=str(model["fingerprint"]),
            intervals={n: v for n, v in (intervals or {}).items() if n in kept or n == AGREEMENT},
            **costs,
        )

    def of_student(role: str, title: str, own: DistillationModule, its: Result) -> Row:
        used = student_as_used(own.eval())
        # The weights that were trained are those of its checkpoint.
        about = {
            "fingerprint": fingerprint(own.student),
            "parameters": used.parameters,
            "size_mb": used.size_mb,
        }
        # A run that is older than these has left its predictions alone.
        by_class = intervals_of(its.metrics, predictions.get(role), predictions.get("teacher"))
        intervals, of = {**by_class, **its.intervals}, (own, used.model, used.forward)
        return row(title, about, its.metrics, of, its.parts.get(name), its, intervals)

    teacher = None
    taught_by = module.taught_by
    if taught_by is not None:
        measured = of_teacher(result.metrics)
        intervals: dict[str, Sequence[float]] = {
            **intervals_of(measured, predictions.get("teacher")),
            **of_teacher(result.intervals),
        }
        # One that is not there is as large as it was, and takes no time.
        of = module, taught_by.model, module.teacher_forward
        parts = result.parts.get(f"teacher_{name}")
        teacher = row("teacher", taught_by.about(), measured, of, parts, None, intervals)
    others = {}
    for one, (own, its) in (beside or {}).items():
        terms |= {*own.objective.terms, *own.objective.sums}
        others[one] = of_student(one, TITLES[one], own, its)
    # Of several stages the last may look at labels alone.
    taught = bool(others) or bool(module.objective.sources("teacher"))
    title = "student distilled" if taught else "student"
    student = of_student("student", title, module, result)
    stages = curves or [(0, directory / "metrics.csv")]
    runs = {"distilled" if teacher is not None else "student": stages}
    weights = {} if len(stages) > 1 else {n: module.objective.fixed_weights() for n in runs}
    # Of stages that the control had too, the last lies in its own folder.
    runs |= {TITLES[one]: [(0, directory / one / "metrics.csv")] for one in others}
    weights |= {TITLES[n]: own.objective.fixed_weights() for n, (own, _) in (beside or {}).items()}
    monitored = (str(cfg.monitor), str(cfg.mode))
    comparison = Comparison(
        metric=name,
        higher_is_better=higher_is_better,
        student=student,
        teacher=teacher,
        **others,
        max_drop=cfg.max_metric_drop,
        relative=cfg.metric_drop == "relative",
        facts={**_facts(cfg, data, result), **(facts or {})},
        origin={**_origin(data, directory), **measuring.about},
        curves={
            n: [(before, str(path.relative_to(directory))) for before, path in own]
            for n, own in runs.items()
        },
        weights=weights,
        monitor=monitored[0],
        mode=monitored[1],
    )
    if show:
        comparison.show()
    # A teacher is measured in the test alone.
    line = None if teacher is None else teacher.metrics.get(monitored[0].removeprefix("val/"))
    draw_curves(runs, directory / "curves.png", monitored, line)
    comparison.save(directory)
    task = task_in(cfg)
    if task is not None and task.writes_texts:
        too = {TITLES[one]: own.student for one, (own, _) in (beside or {}).items()}
        students = {**too, title: module.student}
        write_samples(directory, data, students, module.teacher, from_source=task.reads_source)
    write_similar_layers(directory, module, data)
    profile = Profile.load(directory) if cfg.get("profile") else None
    if profile is not None:
        if show:
            profile.show()
        profile.append_to(directory / "report.md")
    _, shown = differing(predictions)
    write_row_texts(directory, data, shown.tolist())
    write_page(directory)
    # Without a logger there are neither curves nor a table of them.
    names = ("report.html", "report.md", "curves.png", "metrics.csv", "profile.png")
    written = ["student/", *(name for name in names if (directory / name).is_file())]
    say("Written", f"{_short(directory)}: {', '.join(written)}")


def _compared(cfg: DictConfig, module: DistillationModule) -> tuple[str, bool]:
    """The metric that the report compares, and whether more of it is better."""
    name = str(cfg.monitor).removeprefix("val/")
    metrics = dict(module.metrics["test"].items())  # type: ignore[union-attr,operator]
    comparable = [n for n, m in metrics.items() if not needs_teacher(m)]
    if name in comparable or not comparable:
        return name, cfg.mode == "max"
    # Losses are made of other terms in each model, and nobody agrees with the teacher as it does.
    return comparable[0], best_mode(metrics[comparable[0]]) == "max"


def _facts(cfg: DictConfig, data: Any, result: Result) -> dict[str, str]:
    facts = {"seed": str(cfg.seed), "training": f"{result.steps} steps in {result.seconds:.0f} s"}
    facts |= {name: f"{count:,}" for name, count in DataFacts(data).counts.items()}
    return facts


def _origin(data: Any, directory: Path) -> dict[str, str]:
    """How the run was made."""
    last = typed_command()
    # A run that goes on was begun with another command.
    first = str(record_of(directory).get("command") or last)
    found = {"command": first} if first else {}
    found |= {"gone on with": last} if last != first else {}
    found["versions"] = ", ".join(f"{name} {of}" for name, of in versions_here().items())
    if defines(data, "fingerprint"):
        found["data, SHA-256"] = data.fingerprint()
    return found


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
