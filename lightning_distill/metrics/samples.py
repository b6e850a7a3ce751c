"""What metrics are fed with: the rows of a batch that count, or its tokens, some at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..models.batch import (
    describe,
    entry,
    labels_of,
    pairs_tokens,
    take_rows,
    teacher_entries,
    with_entries,
)
from ..tasks import infer_task, Task
from .kept_states import give, KeptStates
from .traits import (
    batch_entries,
    is_binary,
    needs_teacher,
    optional_entries,
    reads_probabilities,
    reads_rows,
    reads_texts,
    reads_vectors,
    sources_of,
    take_task,
)

# So many logits of a model are held in float32 at once: 32 MiB. The whole of a batch of a language
# model would be larger than the model.
AT_ONCE = 2**23


@dataclass(frozen=True)
class Samples:
    """Rows of a batch, or tokens of it.

    Attributes:
        predicted: by the model that is measured, `(samples, ...)`.
        teacher: what the teacher predicts for the same samples, if it was asked.
        labels: of the samples, if there are any.
        entries: entries of the batch that the task or a metric names, of the samples.
        are_tokens: whether they are, and not rows; then all of them count.
        task: says which rows have a label, and in which type metrics get labels.
        are_sequences: whether they are rows of tokens, for metrics that read these as a whole
            (`reads_rows`) and are given no single tokens.
        rows: of each sample, the place of its row in the batch, `(samples,)`; by default each is
            a row.
    """

    predicted: Tensor
    teacher: Tensor | None = None
    labels: Tensor | None = None
    entries: Mapping[str, Tensor] = field(default_factory=dict)
    are_tokens: bool = False
    task: Task = field(default_factory=Task)
    are_sequences: bool = False
    rows: Tensor | None = None

    @classmethod
    def of(
        cls,
        batch: Any,
        predicted: Tensor,
        teacher: Tensor | None = None,
        rows: Tensor | None = None,
        metrics: Iterable[Metric] = (),
        task: Task | None = None,
    ) -> Iterator["Samples"]:
        """Those of a batch: its rows at once, or, where tokens are predicted, these in parts.

        Of tokens only those come that count. Where one model predicts more ids than the other, its
        head is padded, and a metric that compares them is given the ids of both.

        Args:
            batch: as the data loader gives it.
            predicted: what the model predicts for it.
            teacher: what its teacher predicts.
            rows: which rows count; `None` if all.
            metrics: which will be fed.
            task: says which tokens count; see [`infer_task`][lightning_distill.tasks.infer_task]
                for `None`.

        Raises:
            ValueError: if the batch has no entry that a metric wants.
        """
        labels, metrics = labels_of(batch), list(metrics)
        task = task or infer_task(None, batch, predicted) or Task()
        entries = {n: v for n in task.entries if (v := entry(batch, n)) is not None}
        entries |= _entries(batch, metrics)
        predicted = task.as_labelled(batch, predicted)
        teacher = None if teacher is None else task.as_labelled(batch, teacher)
        counted = task.counted(batch, predicted)
        places = take_rows(torch.arange(len(predicted), device=predicted.device), rows)
        if counted is None:
            taken = {name: take_rows(value, rows) for name, value in entries.items()}
            predicted, teacher, labels = (take_rows(v, rows) for v in (predicted, teacher, labels))
            yield cls(predicted, teacher, labels, taken, task=task, rows=places)
            return
        if any(reads_rows(metric) for metric in metrics):
            whole, taught, tags = (take_rows(v, rows) for v in (predicted, teacher, labels))
            more = {name: take_rows(v, rows) for name, v in _optional(batch, metrics).items()}
            yield cls(whole, taught, tags, more, task=task, are_sequences=True, rows=places)
        if rows is not None:
            counted = counted & rows.view(-1, *[1] * (counted.dim() - 1))
        sizes = [m.shape[-1] for m in (predicted, teacher) if m is not None]
        for part in counted.nonzero().split(max(AT_ONCE // max(sizes), 1)):
            if len(part) == 0:
                continue
            at = part.unbind(-1)
            yield cls(
                predicted[at].float(),
                None if teacher is None else teacher[at].float(),
                None if labels is None else labels[at],
                {name: value[at] for name, value in entries.items()},
                are_tokens=True,
                task=task,
                rows=part[:, 0],
            )

    def feed(self, metric: Metric, kept: KeptStates | None = None) -> None:
        """Give a metric what has a label, or both models' predictions if it needs the teacher.

        Args:
            metric: any; those that are fed in ways of their own are passed over.
            kept: where it is kept what each row adds to the metric; by default nowhere.
        """
        given = self._given(metric)
        if given is not None:
            rows, args, named = given
            give(metric, rows, args, named, kept)

    def _given(self, metric: Metric) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]] | None:
        """Places of rows, arguments and arguments by keyword; `None` if there is nothing."""
        if reads_texts(metric) or sources_of(metric):
            # These are fed in ways of their own.
            return None
        rows = self.rows
        if rows is None:
            rows = torch.arange(len(self.predicted), device=self.predicted.device)
        if self.are_sequences or self.are_tokens:
            if reads_rows(metric) is not self.are_sequences:
                return None
            if self.are_sequences and self.labels is None:
                return None
            if self.are_sequences:
                names = [name for name in optional_entries(metric) if name in self.entries]
                more = {name: self.entries[name] for name in names}
                return rows, (self.predicted, self.labels), more  # type: ignore[return-value]
        entries = {name: self.entries[name] for name in batch_entries(metric)}
        take_task(metric, self.task)
        if needs_teacher(metric):
            if self.teacher is None:
                return None
            ours = self._measured(metric, self.predicted)
            theirs = self._measured(metric, self.teacher)
            return rows, _of_both(ours, theirs, self.are_tokens), entries
        labels, predicted = self.labels, self._measured(metric, self.predicted)
        if labels is None:
            return None
        if not self.are_tokens:
            if labels.shape != predicted.shape[: labels.dim()]:
                raise ValueError(
                    f"There must be a label for each row or for each token: got predictions of "
                    f"shape {tuple(predicted.shape)} and labels of shape {tuple(labels.shape)}."
                )
            known = self.task.labelled(labels)
            if not known.any():
                return None
            labels, predicted = labels[known], predicted[known].float()
            entries = {name: value[known] for name, value in entries.items()}
            rows = _of_samples(rows, known)
        return rows, (predicted, self.task.measured_labels(labels)), entries

    def _measured(self, metric: Metric, predicted: Tensor) -> Tensor:
        if reads_vectors(metric):
            return predicted
        measured = self.task.measured(predicted, self.entries)
        if not reads_probabilities(metric):
            return measured
        found = self.task.probabilities(measured)
        if not is_binary(metric) or found.dim() < 2:
            return found
        if found.shape[-1] != 2:
            raise ValueError(
                f"{type(metric).__name__} measures two classes, and predictions have shape "
                f"{tuple(found.shape)}. Take the Multiclass or Multilabel metric of this name."
            )
        return found[..., 1]


def teacher_batch(batch: Any, predicted: Tensor) -> Any:
    """The batch as the teacher sees it, with its own labels where its tokens are its own.

    Args:
        batch: as the data loader gives it.
        predicted: what the student predicts for it.

    Returns:
        The batch; `None` if its labels are of the student's tokens, and the teacher has others.
    """
    own = teacher_entries(batch)
    if own is None or not _has_own_tokens(batch, predicted):
        return batch if own is None else with_entries(batch, own)
    return own if labels_of(own) is not None else None


def check_pairs(batch: Any, predicted: Tensor, metrics: Mapping[str, Metric]) -> None:
    """Refuse to compare two models token by token where each has tokens of its own.

    Raises:
        ValueError: naming the metrics that would.
    """
    names = [name for name, m in metrics.items() if needs_teacher(m) and not sources_of(m)]
    if names and _has_own_tokens(batch, predicted):
        raise ValueError(
            f"The metrics {', '.join(names)} compare student and teacher token by token, and the "
            "teacher has tokens of its own (batch['teacher']): the two stand for different pieces "
            "of text. Leave them out, as in metrics=[perplexity,bits_per_byte]."
        )


def check_vectors(teacher: Tensor, metrics: Mapping[str, Metric]) -> None:
    """Refuse metrics that compare vectors of two models, where the teacher gives scores.

    Args:
        teacher: what it predicts; of scores `(texts, 1)`.
        metrics: by name.

    Raises:
        ValueError: naming the metrics that would.
    """
    names = [name for name, m in metrics.items() if needs_teacher(m) and reads_vectors(m)]
    if names and teacher.shape[-1] == 1:
        raise ValueError(
            f"The metrics {', '.join(names)} compare vectors of student and teacher, and this "
            "teacher gives scores of pairs. Choose others, as in metrics=[ndcg,recall_at_k]."
        )


def _of_samples(rows: Tensor, known: Tensor) -> Tensor:
    """The rows of those samples that are known, where each row may have several."""
    return rows.view(-1, *[1] * (known.dim() - 1)).expand(known.shape)[known]


def _of_both(student: Tensor, teacher: Tensor, are_tokens: bool) -> tuple[Tensor, Tensor]:
    shared = min(student.shape[-1], teacher.shape[-1])
    if not are_tokens or student.shape[-1] == teacher.shape[-1]:
        return student, teacher
    return student[..., :shared], teacher[..., :shared]


def _has_own_tokens(batch: Any, predicted: Tensor) -> bool:
    if pairs_tokens(batch):
        # What it predicts was put where the student's tokens are.
        return False
    own, labels = teacher_entries(batch), labels_of(batch)
    # By dimensions and not by shapes: heads may have been asked for the last token alone.
    per_token = labels is None or 1 < labels.dim() == predicted.dim() - 1
    return own is not None and "input_ids" in own and predicted.dim() > 2 and per_token


def _optional(batch: Any, metrics: Iterable[Metric]) -> dict[str, Tensor]:
    names = {name for metric in metrics for name in optional_entries(metric)}
    found = {name: entry(batch, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _entries(batch: Any, metrics: Iterable[Metric]) -> dict[str, Tensor]:
    found = {}
    for metric in metrics:
        for name in batch_entries(metric):
            found[name] = entry(batch, name)
            if found[name] is None:
                raise ValueError(
                    f"{type(metric).__name__} reads the entry {name!r} of each batch, and the "
                    f"batch has {describe(batch)}. Take data that have it, or leave this metric "
                    "out."
                )
    return found
