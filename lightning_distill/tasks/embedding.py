"""Vectors of texts, whose cosine says how alike two texts are."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn, Tensor

from ..criteria import PairScore
from ..criteria.pair_score import cosines
from ..models.batch import entry
from ..models.pooling import NORMALISED
from ..models.sentence_folder import check_sentence_folder, write_sentence_folder
from ..models.source import Source
from ..objective.term import Term
from .regression import Regression
from .task import Task

# Of a teacher that reads pairs.
SCORES = Source("teacher", "output", "logits")


class Embedding(Task):
    """A vector for each text: float `(texts, width)`; labels are scores of texts that belong.

    Every text is a row of the batch. `place` says which place it has among the texts of its row of
    the data: 0 for the first (a query, or the first of a pair), 1 and more for the candidates that
    follow. A candidate's label is how alike it is to the first; NaN without, and for the first.

    Args:
        pooling: how a model's tokens become one vector: `mean`, `cls`, `max` or `last`.
        normalised: whether vectors have length 1.

    References:
        Reimers and Gurevych, *Sentence-BERT*, 2019, https://arxiv.org/abs/1908.10084.
    """

    name: ClassVar[str] = "embedding"
    heads: ClassVar[Mapping[str, str]] = {"Model": "AutoModel"}
    peft_task: ClassVar[str | None] = "FEATURE_EXTRACTION"
    label_kind: ClassVar[str] = "mse"
    criteria: ClassVar[tuple[str, ...]] = ("pair_score", "vectors")
    metrics: ClassVar[tuple[str, ...]] = ("spearman", "similarity_agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ("torchmetrics.retrieval",)
    has_softmax: ClassVar[bool] = False
    has_names: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False
    one_width: ClassVar[bool] = False
    label_of: ClassVar[str] = "candidates"
    entries: ClassVar[tuple[str, ...]] = ("place",)

    def __init__(self, pooling: str = "mean", normalised: bool = True):
        self.pooling, self.normalised = pooling, normalised
        self.source("student")

    def __repr__(self) -> str:
        return f"Embedding(pooling={self.pooling!r}, normalised={self.normalised})"

    def source(self, role: str) -> Source:
        """Where the vectors of a model are read."""
        more = f",{NORMALISED}" if self.normalised else ""
        return Source.parse(f"{role}.pooled:{self.pooling}{more}")

    # Models.

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Nothing: a model without a head has no labels."""

    def pipeline_tag(self, architecture: str | None = None) -> str:
        """Vectors whose cosine says how alike texts are."""
        return "sentence-similarity"

    def settle(self, model: nn.Module) -> None:
        """Freeze what lies behind the hidden states, as BERT's pooler: no vector comes from it."""
        for name, weight in model.named_parameters():
            if ".pooler." in f".{name}":
                weight.requires_grad_(False)

    def check_folder(self, folder: Path, role: str) -> None:
        """Say where a folder of sentence-transformers pools in another way than this task."""
        check_sentence_folder(folder, self.pooling, role)

    def finish_folder(self, folder: Path, model: Any, max_length: int | None) -> None:
        """Let sentence-transformers load the folder, with the same vectors."""
        write_sentence_folder(folder, model, self.pooling, self.normalised, max_length)

    # What is learnt.

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Term:
        """Cosines close to the scores of the data."""
        inputs: dict[str, Any] = {"student": self.source("student"), "labels": "batch.labels"}
        return Term(PairScore(), {**inputs, "place": "batch.place"})

    # What is measured.

    def predicted_from(self, role: str, sources: Sequence[Source]) -> Source | None:
        """The vectors as the task pools them; of a teacher what a term reads, vectors or scores."""
        asked = (s for s in sources if s.role == role == "teacher")
        return next((s for s in asked if s.kind == "pooled" or s == SCORES), self.source(role))

    def predictions(self, outputs: Any) -> Float[Tensor, "texts width"]:
        """The vectors; of a teacher with scores these, `(texts, 1)`."""
        found = entry(outputs, "vectors")
        if not isinstance(found, Tensor):
            raise ValueError(
                "The vectors of task=embedding are pooled from hidden states, and these outputs "
                "have none: override `predictions` where your models return vectors themselves."
            )
        return found

    def measured(self, predicted: Tensor, entries: Mapping[str, Tensor]) -> Float[Tensor, " texts"]:
        """The cosine of each candidate with the first text of its row; NaN for the first.

        Scores, `(texts, 1)`, are given as they are.
        """
        place = entries.get("place")
        if place is None:
            return predicted.new_full(predicted.shape[:1], math.nan)
        if predicted.shape[-1] == 1:
            return predicted.squeeze(-1).where(place != 0, math.nan)
        return cosines(predicted, place)

    def compared(self, predicted: Tensor, entries: Mapping[str, Tensor]) -> Tensor:
        """As measured; the cosines of all pairs of texts where none belongs to another."""
        found = self.measured(predicted, entries)
        if not found.isnan().all():
            return found
        # Vectors of two models may have other widths; their cosines are alike all the same.
        unit = F.normalize(predicted.float(), dim=-1)
        first, second = torch.triu_indices(len(unit), len(unit), 1).unbind()
        return (unit[first] * unit[second]).sum(-1)

    def agree(self, student: Tensor, teacher: Tensor, tolerance: float) -> Tensor:
        """Where the cosines of candidates differ by no more than the tolerance."""
        there = ~student.isnan()
        return (student[there] - teacher[there]).abs() <= tolerance

    def takes_metric(self, owner: Task | None, options: Mapping[str, Any]) -> bool:
        """Also those of numbers, which are given the cosines."""
        return owner is None or isinstance(owner, Regression | Embedding)

    # Labels of files.

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Tensor:
        """The score of each row, NaN without; `(rows,)`."""
        return Regression().read_labels(values, names, split)

    def without_label(self, labels: Tensor) -> float:
        """NaN."""
        return math.nan

    def labelled(self, labels: Tensor) -> Tensor:
        """Which texts have a score."""
        return ~labels.isnan() if labels.is_floating_point() else torch.ones_like(labels).bool()


__all__ = ["Embedding"]
