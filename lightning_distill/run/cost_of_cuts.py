"""What each cut of a student costs before any training, as a table in the log."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn, Tensor

from ..metrics import Samples
from ..models.batch import labels_of, move, teacher_entries, with_entries
from ..models.embeddings import vocabulary_size
from ..models.modes import in_eval_mode
from ..models.size import parameter_count
from ..objective.objective import Objective
from ..students.shape import Shape
from ..students.units import Anatomy
from ..tasks import Task
from ..training.module import DistillationModule
from ..training.values import read_values, student_outputs

log = logging.getLogger("lightning_distill")


def module_of(model: nn.Module, task: Task) -> DistillationModule:
    """What runs a model on batches of a task, and knows its loss on labels."""
    return DistillationModule(model, None, Objective({"labels": task.label_term(model)}), task=task)


def label_loss(model: nn.Module, task: Task, batch: Any) -> Tensor:
    """What the model loses on the labels of a batch; without any, on what it itself predicts.

    Args:
        model: in the mode that it shall run in.
        task: says what labels mean.
        batch: as the data loader gives it.

    Raises:
        ValueError: where there are no labels, and predictions are no classes.
    """
    module = module_of(model, task)
    batch = move(batch, next(model.parameters()).device)
    labels = labels_of(batch)
    if labels is None or not bool(task.labelled(labels).any()):
        if not task.has_softmax:
            raise ValueError(
                f"student.importance=gradient is that of the loss on labels, and a batch of "
                f"data.task={task.name} has none. Take student.importance=activations."
            )
        with torch.no_grad():
            predicted = module.predictions(student_outputs(module, batch)[0])
            own = task.counted(batch, predicted)
            classes = predicted.argmax(-1)
        batch = with_entries(
            batch, {"labels": classes if own is None else classes.masked_fill(~own, -100)}
        )
    values, _, _ = read_values(module, batch)
    return module.objective(values)["loss"]


@torch.no_grad()
def distance(student: nn.Module, teacher: nn.Module, task: Task, batches: Iterable[Any]) -> float:
    """How far a student's predictions are from its teacher's; a mean over rows, or over tokens.

    Args:
        student: run in eval mode.
        teacher: likewise; it is given its own tokens, where batches have some.
        task: says which predictions count. Where a softmax of them has a meaning, the distance is
            the Kullback-Leibler divergence in nats; else the squared difference, divided by the
            mean square of the teacher's.
        batches: as the data loader gives them.
    """
    device = next(teacher.parameters()).device
    labels = Objective({"labels": task.label_term(student)})
    module = DistillationModule(student.eval().to(device), teacher, labels, task=task).eval()
    total, count = 0.0, 0.0
    for given in batches:
        batch = move(given, device)
        _, *outputs = read_values(module, batch, with_teacher=True)
        ours, theirs = map(module.predictions, outputs)
        for part in Samples.of(batch, ours, theirs, task=task):
            assert part.teacher is not None
            a, b = (task.compared(p, part.entries).double() for p in (part.predicted, part.teacher))
            if task.has_softmax:
                a, b = a.log_softmax(-1), b.log_softmax(-1)
                apart = (b.exp() * (b - a)).sum(-1)
                total, count = total + float(apart.sum()), count + apart.numel()
            else:
                there = ~b.isnan()
                total += float((a[there] - b[there]).square().sum())
                count += float(b[there].square().sum())
    return total / max(count, 1e-30)


def report_cuts(
    teacher: nn.Module,
    anatomy: Anatomy,
    shape: Shape,
    make: Callable[[Shape], nn.Module],
    student: nn.Module,
    task: Task,
    batches: Sequence[Any],
) -> None:
    """Log a line for each cut alone and one for all of them: sizes, and how far predictions move.

    Args:
        teacher: with all of its tokens.
        anatomy: of the teacher, or of it with the tokens that the student knows.
        shape: of the student.
        make: makes the student of a shape.
        student: that of `shape`.
        task: see [`distance`][].
        batches: see there.
    """
    fewer = anatomy.model is not teacher
    # It is not asked where it has no tokens of its own, or would say something of other ones.
    own = any(teacher_entries(batch) is not None for batch in batches)
    apart = fewer and (task.predicts_ids or not own)
    compared = anatomy.model if apart else teacher
    batches = [with_entries(b, {"teacher": None}) for b in batches] if apart else batches
    lines = [("cut", "from", "to", "parameters", "distance")]

    def line(name: str, before: str, after: str, made: nn.Module) -> None:
        itself = made is compared
        away = "-" if itself else f"{distance(made, compared, task, batches):.3g}"
        lines.append((name, before, after, f"{parameter_count(made):,}", away))

    with _as_before(teacher), _as_before(anatomy.model):
        cuts = _cuts(anatomy, shape)
        if fewer:
            old, new = (f"{vocabulary_size(m):,}" for m in (teacher, anatomy.model))
            line("vocabulary", old, new, anatomy.model)
        for name, (before, after, alone) in cuts.items():
            line(name, before, after, student if len(cuts) == 1 else make(alone))
        size, of = parameter_count(student), parameter_count(teacher)
        line("all", f"{of:,}", f"{size:,}", student)
        lines[-1] = (*lines[-1][:3], f"{size:,} ({size / of:.1%})", lines[-1][-1])
    student.cpu().train()
    unit = "KL, nats" if task.has_softmax else "squared, relative"
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    log.info("Student before training; distance to the teacher's predictions (%s):", unit)
    for cells in lines:
        log.info("  %s", "  ".join(t.ljust(w) for t, w in zip(cells, widths, strict=True)).rstrip())


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """A model in eval mode, that is as it was afterwards."""
    trained = {weight: weight.requires_grad for weight in model.parameters()}
    try:
        with in_eval_mode(model):
            yield
    finally:
        for weight, learns in trained.items():
            weight.requires_grad_(learns)


def _cuts(anatomy: Anatomy, shape: Shape) -> dict[str, tuple[str, str, Shape]]:
    """Each cut by its name: what there was, what is left, and the shape with this cut alone."""
    whole, found = anatomy.shape, {}
    if shape.layers != whole.layers:
        texts = ["+".join(map(str, s.layers)) for s in (whole, shape)]
        found["layers"] = (texts[0], texts[1], replace(whole, layers=shape.layers))
    if shape.intermediate != whole.intermediate:
        alone = replace(whole, intermediate=shape.intermediate)
        found["intermediate"] = (str(whole.intermediate), str(shape.intermediate), alone)
    with_heads = replace(whole, heads=shape.heads, key_values=shape.key_values)
    if anatomy.family.tied:
        if shape.width != whole.width:
            texts = [f"{s.width} ({s.heads} heads)" for s in (whole, shape)]
            found["width"] = (texts[0], texts[1], replace(with_heads, width=shape.width))
        return found
    if shape.heads != whole.heads:
        found["heads"] = (str(whole.heads), str(shape.heads), with_heads)
    if shape.width != whole.width:
        found["width"] = (str(whole.width), str(shape.width), replace(whole, width=shape.width))
    return found
