"""A score for each query and candidate, which says how relevant the candidate is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..criteria import HardLabel, OfCandidates
from ..criteria._relevance import Relevance
from ..models.source import Source
from ..objective.term import Term, Terms
from .embedding import Embedding
from .regression import Regression
from .task import Task

PLACE = Source("batch", "output", "place")
LABELS = Source("batch", "output", "labels")
IDENTITY = "torch.nn.modules.linear.Identity"


class Ranking(Regression):
    """Scores of queries and candidates that are read as one text; float `(pairs,)`, NaN without.

    Every candidate is a row of the batch, together with its query. `place` says which place it has
    among the candidates of its query, from 1. A term that compares predictions is given the scores
    of each query's candidates, `(queries, candidates)`, whose softmax is one over candidates; see
    [`OfCandidates`][lightning_distill.criteria.OfCandidates].

    Args:
        label_kind: how labels are learnt: `cross_entropy` of the relevant candidate among all of
            its query, `binary_cross_entropy` or `mse` of each candidate by itself.

    References:
        Nogueira and Cho, *Passage Re-ranking with BERT*, 2019, https://arxiv.org/abs/1901.04085.
    """

    name: ClassVar[str] = "ranking"
    heads: ClassVar[Mapping[str, str]] = {
        "ForSequenceClassification": "AutoModelForSequenceClassification"
    }
    label_kind: ClassVar[str] = "cross_entropy"
    metrics: ClassVar[tuple[str, ...]] = ("ndcg", "mrr")
    criteria: ClassVar[tuple[str, ...]] = ("hard_label", "listwise_kl")
    measured_by: ClassVar[tuple[str, ...] | None] = ()
    fixed_classes: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = True
    label_of: ClassVar[str] = "candidates"

    def __init__(self, label_kind: str = "cross_entropy"):
        # Checked there.
        self.label_kind = Relevance(label_kind).kind  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Ranking(label_kind={self.label_kind!r})"

    def pipeline_tag(self, architecture: str | None = None) -> str:
        """Scores that order candidates."""
        return "text-ranking"

    def finish_folder(self, folder: Path, model: Any, max_length: int | None) -> None:
        """Let `CrossEncoder` of sentence-transformers load the folder, with the same scores."""
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        # Its default is a sigmoid.
        config["sentence_transformers"] = {"activation_fn": IDENTITY}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def check_candidates(self, most: int) -> None:
        """Refuse labels that are learnt by comparing candidates, where no query has two."""
        if most < 2 and self.label_kind == "cross_entropy":
            raise ValueError(
                "No query has more than one candidate, and data.task=ranking learns labels by the "
                "cross-entropy among the candidates of a query. For scores of pairs: "
                "'data.task={_target_: lightning_distill.tasks.Ranking, label_kind: mse}', or "
                "binary_cross_entropy for scores from 0 to 1, with criteria=[hard_label,logit_mse]."
            )

    def terms(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Terms of predictions compare lists of candidates, and labels say which are relevant.

        Raises:
            ValueError: for a criterion that needs the label of a class.
        """
        return {n: _Lists(n, t) if isinstance(t, Terms) else t for n, t in terms.items()}

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Terms:
        """Scores that order the candidates as their labels do."""
        inputs: dict[str, Any] = {"student": "student.logits", "labels": LABELS, "place": PLACE}
        return Term(Relevance(self.label_kind), inputs)

    def takes_metric(self, owner: Task | None, options: Mapping[str, Any]) -> bool:
        """Those of numbers, and of ordered candidates."""
        return owner is None or isinstance(owner, Regression | Embedding)


class _Lists(Terms):
    """Terms of which those that read predictions are given the candidates of each query.

    Args:
        name: for errors.
        terms: one term, or several under one name.
    """

    def __init__(self, name: str, terms: Terms):
        super().__init__()
        self.given, self.weight = terms, terms.weight
        for _, term in terms.expanded().values():
            _of_lists(name, term)
        self.name = name

    def sources(self) -> list[Source]:
        """Everything that the terms read."""
        terms = (term for _, term in self.expanded().values())
        return list(dict.fromkeys(source for term in terms for source in term.sources()))

    def expanded(self) -> Mapping[str, tuple[float, Term]]:
        """Each term on lists, if it reads predictions."""
        return {
            name: (ratio, _of_lists(self.name, term))
            for name, (ratio, term) in self.given.expanded().items()
        }


def _of_lists(name: str, term: Term) -> Term:
    criterion = term.criterion
    if "place" in term.inputs or not any(map(_reads_logits, term.inputs.values())):
        return term
    if isinstance(criterion, HardLabel):
        if criterion.label_smoothing:
            raise ValueError(
                f"Term {name!r} smooths labels over classes, and candidates are none: leave "
                f"criteria.{name}.criterion.label_smoothing=0."
            )
        return _changed(term, Relevance(criterion.kind))
    if {*term.inputs} != {"student", "teacher"}:
        raise ValueError(
            f"Term {name!r} ({criterion.class_name}) reads {', '.join(term.inputs)}, and a ranking "
            "compares the scores of a query's candidates, student and teacher, with each other. "
            "Choose one that reads these two alone, as in criteria=[hard_label,listwise_kl] or "
            "criteria=[hard_label,margin_mse]."
        )
    return _changed(term, OfCandidates(criterion))


def _changed(term: Term, criterion: Any) -> Term:
    inputs = {**term.inputs, "place": PLACE}
    return Term(criterion, inputs, term.weight, training_only=term.training_only)


def _reads_logits(source: Source) -> bool:
    return source.role != "batch" and (source.kind, source.name) == ("output", "logits")


__all__ = ["Ranking"]
