"""Where in a text the answer to a question begins and ends."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ..criteria import HardLabel
from ..criteria._positions import OverPositions
from ..models.capture import read
from ..models.source import Source
from ..objective.term import Term, Terms
from ..objective.weight import scaled
from .task import Task

ENDS = ("start", "end")
POSITIONS = Source("batch", "output", "answer_mask", optional=True)
PADDING = Source("batch", "output", "attention_mask", optional=True)
# Larger than any difference of logits, and small enough for any type.
RULED_OUT = -1e4


def first(labels: Int[Tensor, "rows 2"]) -> Int[Tensor, " rows"]:
    """Where answers begin."""
    return labels[:, 0]


def last(labels: Int[Tensor, "rows 2"]) -> Int[Tensor, " rows"]:
    """Where answers end."""
    return labels[:, 1]


class QuestionAnswering(Task):
    """First and last token of an answer: int64 `(rows, 2)`, -100 without a label.

    Models give `start_logits` and `end_logits`, each `(rows, tokens)`: the classes are the
    positions of a row. Those count that are true in the entry `answer_mask` of a batch: the tokens
    of the context, and the one that stands for no answer; without it, those in `attention_mask`.

    A term that reads `logits` becomes two, `NAME_start` and `NAME_end`. Each counts a half, and
    `NAME` is their sum, as in the loss of transformers.

    References:
        Devlin et al., *BERT*, 2019, https://arxiv.org/abs/1810.04805, section 4.2.
    """

    name: ClassVar[str] = "question_answering"
    heads: ClassVar[Mapping[str, str]] = {"ForQuestionAnswering": "AutoModelForQuestionAnswering"}
    peft_task: ClassVar[str | None] = "QUESTION_ANS"
    metrics: ClassVar[tuple[str, ...]] = ("answer_f1", "answer_exact_match", "agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ("Answer",)
    has_names: ClassVar[bool] = False
    label_of: ClassVar[str] = "answer"
    fixed_classes: ClassVar[bool] = False
    entries: ClassVar[tuple[str, ...]] = ("answer_mask", "attention_mask")

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Write that two numbers are predicted of each token."""
        super().write_labels(config, len(ENDS))

    # What is learnt.

    def terms(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Two terms for each that reads logits, one for either end of the answer.

        Raises:
            ValueError: for a criterion that does not compare row by row, or needs to know how many
                classes there are.
        """
        found = dict(terms)
        for name, given in terms.items():
            if not isinstance(given, Terms):
                continue
            for _, term in given.expanded().values():
                _check_rows(name, term)
            found[name] = BothEnds(given)
        return found

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Terms:
        """Cross-entropy of both ends."""
        inputs = {"student": "student.logits", "labels": "batch.labels"}
        return BothEnds(Term(HardLabel(self.label_kind, label_smoothing), inputs))

    # What is measured.

    def predictions(self, outputs: Any) -> Float[Tensor, "rows 2 tokens"]:
        """The logits of both ends."""
        sources = [Source("student", "output", f"{end}_logits") for end in ENDS]
        return torch.stack([read(source, outputs, {}) for source in sources], dim=1)

    def measured(self, predicted: Tensor, entries: Mapping[str, Tensor]) -> Tensor:
        """The logits, far below all others where a position does not count."""
        mask = entries.get("answer_mask", entries.get("attention_mask"))
        if mask is None:
            return predicted
        return predicted.float().masked_fill(mask[:, None] == 0, RULED_OUT)

    def labelled(self, labels: Tensor) -> Bool[Tensor, " rows"]:
        """Which rows have both ends."""
        return super().labelled(labels).all(dim=-1)

    def agree(self, student: Tensor, teacher: Tensor, tolerance: float) -> Tensor:
        """Where both ends are the same."""
        return (student.argmax(-1) == teacher.argmax(-1)).all(dim=-1)

    # Labels of files.

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Any:
        """Nothing: answers are found among the tokens of their context.

        Raises:
            ValueError: naming what reads them.
        """
        raise ValueError(
            f"data.task={self.name} has an answer within each text, and no label beside it: such "
            "files are read by data=question_files, and data sets of the hub by data=hub_questions."
        )


class BothEnds(Terms):
    """Terms of which those that read logits are compared at either end of the answer.

    Args:
        terms: one term, or several under one name.
    """

    def __init__(self, terms: Terms):
        super().__init__()
        self.given, self.weight = terms, terms.weight

    def sources(self) -> list[Source]:
        """Everything that the terms read."""
        terms = (term for _, term in self.expanded().values())
        return list(dict.fromkeys(source for term in terms for source in term.sources()))

    def expanded(self) -> Mapping[str, tuple[float, Term]]:
        """A term for each end, with a half of the weight; others as they are."""
        found: dict[str, tuple[float, Term]] = {}
        for name, (ratio, term) in self.given.expanded().items():
            if not any(map(_reads_logits, term.inputs.values())):
                found[name] = (ratio, term)
                continue
            for end in ENDS:
                found[f"{name}_{end}" if name else end] = (ratio / 2, _of_end(term, end))
        return found


def _of_end(term: Term, end: str) -> Term:
    """The same term on the logits and the labels of one end."""
    inputs: dict[str, Source | None] = {}
    logits = [name for name, source in term.inputs.items() if _reads_logits(source)]
    labels = [name for name, source in term.inputs.items() if str(source) == "batch.labels"]
    for name, source in term.inputs.items():
        if name in logits:
            inputs[name] = replace(source, name=f"{end}_logits")
        elif name in labels:
            inputs[name] = replace(source, process=first if end == ENDS[0] else last)
        else:
            inputs[name] = source
    of_batch = [name for name, source in term.inputs.items() if source.role == "batch"]
    return Term(
        OverPositions(term.criterion, logits, labels, of_batch),
        {**inputs, "positions": POSITIONS, "padding": PADDING},
        weight=scaled(term.weight, 0.5),
        training_only=term.training_only,
    )


def _reads_logits(source: Source) -> bool:
    return source.role != "batch" and (source.kind, source.name) == ("output", "logits")


def _check_rows(name: str, term: Term) -> None:
    if any(s.kind == "sparse" for s in term.inputs.values()):
        raise ValueError(
            f"Term {name!r} reads the largest or the drawn logits of a cache, and answers are "
            "looked for among all positions. Take another, as in criteria=[hard_label,soft_target]."
        )
    if not any(map(_reads_logits, term.inputs.values())):
        return
    criterion = term.criterion
    if criterion.across_samples or criterion.gather or criterion.builds_parts:
        raise ValueError(
            f"Term {name!r} ({criterion.class_name}) compares texts with each other class by "
            "class, and here the classes are positions, which mean something else in each text. "
            "Choose one that compares row by row, such as soft_target, jsd or logit_mse."
        )
