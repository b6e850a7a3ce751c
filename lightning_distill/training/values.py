"""From a batch to the tensors that an objective reads: both models run, each source is read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..models.batch import at_students_tokens, pairs_tokens
from ..models.capture import read
from ..models.embeddings import check_vocabulary
from ..models.forward import run_model, with_logits
from ..models.inputs import named
from ..models.label_order import reordered
from ..models.source import OUTPUTS, Source

Values = dict[Source, Any]


def read_values(
    module: Any,
    batch: Any,
    with_teacher: bool = False,
    heads: str = "whole",
    more: Sequence[Source] = (),
) -> tuple[Values, Any, Any]:
    """Run student and teacher on a batch; returns each source's tensor, and what both returned.

    Args:
        module: the [`DistillationModule`][] whose models run.
        batch: on the module's device.
        with_teacher: run the teacher also where no source reads it.
        heads: what heads do that a source names, see [`run_model`][].
        more: sources of the models that are read beside those of the objective.

    Raises:
        ValueError: if the objective reads a teacher and there is none.
    """
    batch = named(batch, module.student)
    sources = {r: module.objective.sources(r) for r in ("student", "teacher", "batch")}
    for role, own in sources.items():
        own += [source for source in more if source.role == role and source not in own]
    taught_by, teacher = module.taught_by, None
    model = None if taught_by is None else taught_by.model
    with module.shared_encoder.once(module.student, model, sources["teacher"]):
        with module.section("student"), _explained(batch, module.student, "student"):
            student, values = _ask_student(module, batch, sources["student"], heads)
        if sources["teacher"] or with_teacher:
            if taught_by is None:
                names = ", ".join(map(str, sources["teacher"]))
                raise ValueError(f"The objective reads {names}, but `teacher` is None.")
            with module.section("teacher"), _explained(batch, model, "teacher"):
                teacher, found = _ask_teacher(module, batch, sources["teacher"], heads)
            values.update(found)
    values.update({source: read(source, batch, {}) for source in sources["batch"]})
    return values, student, teacher


def student_outputs(module: Any, batch: Any, sources: Sequence[Source] = ()) -> tuple[Any, Values]:
    """What the student returns for a batch, as `predictions` takes it, and tensors of it.

    Args:
        module: the [`DistillationModule`][] whose student runs.
        batch: on the module's device.
        sources: of the student.
    """
    return _ask_student(module, batch, list(sources), "whole")


def _predicted_from(
    module: Any, role: str, sources: list[Source], heads: str
) -> tuple[Source | None, list[Source]]:
    """The source of predictions, where metrics will want them, and all that is to be read."""
    if module.task is None or heads == "skipped":
        return None, sources
    found = module.task.predicted_from(role, sources)
    if found is None or found in sources:
        return found, sources
    found = module.taught_by.vectors_for(found) if role == "teacher" else found
    return found, [*sources, found]


def _ask_student(module: Any, batch: Any, sources: list[Source], heads: str) -> tuple[Any, Values]:
    predicted, asked = _predicted_from(module, "student", sources, heads)
    outputs, values = run_model(module.student, module.student_forward, batch, asked, heads)
    return (outputs if predicted is None else {"vectors": values[predicted]}), values


def _ask_teacher(module: Any, batch: Any, sources: list[Source], heads: str) -> tuple[Any, Values]:
    """The teacher's outputs and values, its labels in the student's order."""
    keep = not module.is_trying
    predicted, asked = _predicted_from(module, "teacher", sources, heads)
    outputs, values = module.taught_by.answers(batch, asked, module, heads, keep)
    if predicted is not None:
        return {"vectors": values[predicted]}, values
    if module.label_order is not None:
        outputs = reordered(outputs, module.label_order)
        ordered = [s for s in sources if s.kind in OUTPUTS and s.name == "logits"]
        values |= {source: read(source, outputs, {}) for source in ordered}
    if pairs_tokens(batch):
        compared = [s for s in sources if s.kind == "output" and s.name == "logits"]
        values |= {s: at_students_tokens(batch, values[s]) for s in compared}
        outputs = with_logits(outputs, partial(at_students_tokens, batch))
    return outputs, values


@contextmanager
def _explained(batch: Any, model: Any, role: str) -> Iterator[None]:
    """Say which ids are at fault where an embedding's own error, as of later batches, does not."""
    try:
        yield
    except IndexError:
        check_vocabulary(batch, model, role)
        raise
