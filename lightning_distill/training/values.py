"""From a batch to the tensors that an objective reads: both models run, each source is read."""

from collections.abc import Callable
from typing import Any

import torch

from ..models.capture import read
from ..models.forward import run_model
from ..models.label_order import reordered
from ..models.source import OUTPUTS, Source

Values = dict[Source, Any]


def read_values(
    module: Any, batch: Any, with_teacher: bool = False, heads: str = "whole"
) -> tuple[Values, Any, Any]:
    """Run student and teacher on a batch; returns each source's tensor, and what both returned.

    Args:
        module: the [`DistillationModule`][] whose models run.
        batch: on the module's device.
        with_teacher: run the teacher also where no source reads it.
        heads: what heads do that a source names, see [`run_model`][].

    Raises:
        ValueError: if the objective reads a teacher and there is none.
    """
    sources = {r: module.objective.sources(r) for r in ("student", "teacher", "batch")}
    with module.section("student"):
        student, values = _run(
            module, "student", module.student_forward, batch, sources["student"], heads
        )
    teacher = None
    if sources["teacher"] or with_teacher:
        if module.teacher is None:
            names = ", ".join(map(str, sources["teacher"]))
            raise ValueError(f"The objective reads {names}, but `teacher` is None.")
        if module.teacher.training:
            module.teacher.eval()
        with torch.no_grad(), module.section("teacher"):
            teacher, found = _run(
                module, "teacher", module.teacher_forward, batch, sources["teacher"], heads
            )
        values.update(found)
    values.update({source: read(source, batch, {}) for source in sources["batch"]})
    return values, student, teacher


def _run(
    module: Any,
    role: str,
    forward: Callable[..., Any],
    batch: Any,
    sources: list[Source],
    heads: str,
) -> tuple[Any, Values]:
    model = getattr(module, role)
    recall = getattr(model, "recall", None) if role == "teacher" else None
    if recall is not None:
        outputs, values = recall(module, batch, sources, keep=not module.is_trying)
    else:
        outputs, values = run_model(model, forward, batch, sources, heads)
    if role == "teacher" and module.label_order is not None:
        outputs = reordered(outputs, module.label_order)
        ordered = [s for s in sources if s.kind in OUTPUTS and s.name == "logits"]
        values |= {source: read(source, outputs, {}) for source in ordered}
    return outputs, values
