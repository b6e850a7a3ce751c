"""A teacher that knows nothing is noticed before anything is learnt from it."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ..callbacks.random_state import random_state, set_random_state
from ..metrics import Samples
from ..models.batch import counted_rows, labels_of, teacher_entries
from ..models.inputs import named
from ..models.label_order import reordered
from .transfer import transferred

log = logging.getLogger("lightning_distill")

# So many rows or tokens say whether a teacher knows anything.
ROWS, TOKENS = 512, 8192


@dataclass
class Measured:
    """What a teacher and the best constant answer reach on the same labels.

    Attributes:
        name: accuracy, or mean squared error.
        teacher: its value.
        constant: that of the most frequent class, or of the mean.
        count: how many labels there were.
        unit: rows or tokens.
    """

    name: str
    teacher: float
    constant: float
    count: int
    unit: str = "rows"

    @property
    def higher_is_better(self) -> bool:
        """Of accuracy, and not of an error."""
        return self.name == "accuracy"

    @property
    def is_weak(self) -> bool:
        """Whether the teacher is no better than a constant."""
        if self.higher_is_better:
            return self.teacher <= self.constant
        return self.teacher >= self.constant

    def __str__(self) -> str:
        always = "the most frequent label" if self.higher_is_better else "the mean"
        return (
            f"{self.name} {self.teacher:.4g} on {self.count} validation {self.unit}; always "
            f"answering {always} gives {self.constant:.4g}"
        )


class WeakTeacher(L.Callback):
    """Measures a live teacher on some validation rows before the first step, and says the value.

    A teacher that is no better than a constant answer gets a warning. Nothing is measured where
    the validation rows have no labels, and after resuming.

    Args:
        data: the data module.

    Attributes:
        found: the values; `None` where nothing was measured.
    """

    def __init__(self, data: Any):
        self.data = data
        self.found: Measured | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure it, and leave the generators of random numbers as they were."""
        teacher: Any = getattr(pl_module, "taught_by", None)
        if trainer.global_step > 0 or teacher is None or not teacher.is_live:
            return
        state = random_state(pl_module.device)
        try:
            self.found = measure_teacher(pl_module, self.data)
        finally:
            set_random_state(state, pl_module.device)
        if self.found is not None:
            _say(self.found)


@rank_zero_only
def _say(found: Measured) -> None:
    if not found.is_weak:
        log.info("Teacher: %s", found)
        return
    log.warning(
        "Teacher: %s. A teacher that is no better has nothing to teach: is it trained, for these "
        "labels in this order, and is data.tokenizer its own?",
        found,
    )


def measure_teacher(
    module: Any, data: Any, batches: Iterable[Any] | None = None
) -> Measured | None:
    """What the teacher of a module and a constant reach on the first validation rows.

    Args:
        module: a [`DistillationModule`][] within its trainer.
        data: the data module.
        batches: of validation rows; by default those of its loader.

    Returns:
        The figures; `None` if there is nothing to compare.
    """
    seen, unit = _Seen(), "rows"
    batches = data.val_dataloader() if batches is None else batches
    for predicted, labels, are_tokens in _answers(module, data, batches):
        if not seen.add(predicted, labels, module.task):
            return None
        unit = "tokens" if are_tokens else unit
        if seen.count >= (TOKENS if are_tokens else ROWS):
            break
    return seen.result(unit)


@torch.no_grad()
def _answers(
    module: Any, data: Any, batches: Iterable[Any]
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    terms = module.objective.terms.values()
    if any(term.criterion.shift_labels for term in terms):
        # Labels do not stand where they are predicted.
        return
    if module.task is not None and module.task.predicted_from("teacher", ()) is not None:
        # Cosines and scores lie on scales of their own: an error says nothing.
        return
    if module.task is not None and not module.task.fixed_classes:
        # A place of a text says nothing of another text.
        return
    # The teacher's own tokens are not those that have a label.
    by_token = module.task is None or module.task.per_token or module.task.predicts_ids
    for batch in batches:
        batch = named(transferred(module, batch, data), module.student)
        if labels_of(batch) is None or (by_token and teacher_entries(batch) is not None):
            return
        with module.trainer.precision_plugin.forward_context():
            outputs, _ = module.taught_by.answers(batch, (), module)
        if module.label_order is not None:
            outputs = reordered(outputs, module.label_order)
        predicted = module.predictions(outputs)
        for samples in Samples.of(batch, predicted, rows=counted_rows(batch), task=module.task):
            if samples.are_sequences or samples.labels is None:
                continue
            labels, predicted = samples.labels, samples.predicted
            if not samples.are_tokens:
                if len(labels) != len(predicted):
                    return
                known = samples.task.labelled(labels)
                if known.shape != predicted.shape[:1]:
                    known = known.flatten(1).all(dim=1)
                labels, predicted = labels[known], predicted[known]
            yield predicted.float(), labels, samples.are_tokens


@dataclass
class _Seen:
    """Sums over all labels so far."""

    count: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, predicted: Tensor, labels: Tensor, task: Any) -> bool:
        """Add some labels; false if predictions and labels cannot be compared."""
        is_class = task is None or task.has_softmax
        if is_class and predicted.dim() == labels.dim() + 1 and not labels.is_floating_point():
            classes = predicted.shape[-1]
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
                return False
            self._sum("hits", (predicted.argmax(-1) == labels).sum())
            self._sum("labels", labels.flatten().bincount(minlength=classes))
        elif predicted.shape == labels.shape and labels.is_floating_point() and not is_class:
            predicted = predicted if task is None else task.as_values(predicted)
            target = labels.double().reshape(len(labels), -1)
            self._sum("errors", (predicted.double().reshape(target.shape) - target).square().sum())
            self._sum("targets", target.sum(0))
            self._sum("squares", target.square().sum(0))
        else:
            return False
        self.count += len(labels)
        return True

    def _sum(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + value.cpu()

    def result(self, unit: str) -> Measured | None:
        """The figures of all that was added."""
        if self.count == 0:
            return None
        if "hits" in self.sums:
            hits, most = float(self.sums["hits"]), float(self.sums["labels"].max())
            return Measured("accuracy", hits / self.count, most / self.count, self.count, unit)
        means = self.sums["targets"] / self.count
        spread = self.sums["squares"] / self.count - means.square()
        error = float(self.sums["errors"]) / self.count / len(means)
        return Measured("mean squared error", error, float(spread.mean()), self.count, unit)
