"""A student cut from the teacher, by what is important on a few batches of the training data."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn

from ..check_values import check_number
from ..models.batch import move
from ..models.inputs import call_model, model_inputs
from ..students.fewer_tokens import fewer_tokens
from ..students.importance import (
    at_random,
    by_activations,
    by_gradient,
    by_magnitude,
    check_kind,
    Scores,
)
from ..students.pruned import prune, smaller_shape
from ..students.units import Anatomy
from ..students.vocabulary_cut import VocabularyCut
from ..tasks import Task
from .cost_of_cuts import label_loss, report_cuts


def pruned_student(
    data: Any,
    teacher: nn.Module,
    parameters: str | float | None = None,
    layers: Any = None,
    heads: int | None = None,
    intermediate: int | None = None,
    width: int | None = None,
    keep: Any = "uniform",
    importance: str = "activations",
    batches: int = 8,
    seed: int = 0,
    label_names: Sequence[str] | None = None,
    freeze: str | Sequence[str] | None = None,
    vocabulary: VocabularyCut | None = None,
    task: Task | None = None,
    rehearsal: bool = False,
    dropout: bool | None = None,
) -> nn.Module:
    """The teacher with less of everything, and perhaps fewer tokens; logs what each cut costs.

    Args:
        data: the data module, whose first training batches are looked at.
        teacher: a Hugging Face model of one of the families in `students/plain_families.py`; it
            stays as it is.
        parameters: how many the student shall have, within 2 %: a share of the teacher's, as
            `40%`, or a number, as `22M`.
        layers: how many; of an encoder and a decoder `{encoder: 6, decoder: 2}`.
        heads: of each attention.
        intermediate: neurons of each feed-forward part.
        width: channels of the hidden states.
        keep: which layers: `importance`, or what `student=from_teacher` takes.
        importance: `activations`, `gradient`, `magnitude` or `random`.
        batches: how many are looked at.
        seed: for `random`.
        label_names: in the order that the student shall have.
        freeze: parts of the student that stay as they are.
        vocabulary: which of the teacher's tokens it knows, and `data` give it.
        task: what the data's labels mean.
        rehearsal: whether the student is only tried, so that nothing is measured.
        dropout: false trains it without; `None` and true, as the teacher's configuration says.

    Returns:
        A model of the teacher's class, in train mode, float32, on the CPU.

    Raises:
        ValueError: for a size that cannot be reached, and models that cannot be cut.
    """
    check_kind(importance)
    check_number("student.batches", batches, whole=True, least=1)
    whole = Anatomy(teacher)
    anatomy, of = whole, None
    if vocabulary is not None:
        # Everything else is cut from a teacher that reads the student's tokens.
        anatomy, of = Anatomy(fewer_tokens(teacher, vocabulary)), whole.count(whole.shape)
    shape = smaller_shape(anatomy, parameters, layers, heads, intermediate, width, keep, of)
    task = task or Task()
    seen: list[Any] = []
    if not rehearsal:
        # A loader draws a number when it begins; what comes after shall not depend on it.
        with torch.random.fork_rng(devices=[]):
            seen = list(islice(data.train_dataloader(), batches))
    scores = _scores(anatomy, "random" if rehearsal else importance, seen, task, seed)
    make = partial(
        prune,
        anatomy,
        scores=scores,
        keep=keep,
        label_names=label_names,
        freeze=freeze,
        dropout=dropout,
    )
    student = make(shape)
    if seen:
        report_cuts(teacher, anatomy, shape, make, student, task, seen)
    return student


def _scores(anatomy: Anatomy, kind: str, seen: list[Any], task: Task, seed: int) -> Scores:
    model = anatomy.model
    device = next(model.parameters()).device

    def run(batch: Any) -> Any:
        return call_model(model, model_inputs(move(batch, device), model), {})

    if kind == "activations":
        return by_activations(anatomy, seen, run)
    if kind == "gradient":
        return by_gradient(anatomy, seen, partial(label_loss, model, task))
    return by_magnitude(anatomy) if kind == "magnitude" else at_random(anatomy, seed)
