"""The next token, or a hidden one, of many for each token."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn, Tensor

from ..criteria import FusedLinearCrossEntropy
from ..models.batch import entry, labels_of
from ..models.head import linear_head
from ..models.source import Source
from ..objective.term import Term, Terms
from .classification import Classification
from .labels import UNLABELLED
from .task import Task


def has_label(labels: Tensor) -> Tensor:
    """Which tokens have a label."""
    return labels != UNLABELLED


LABELLED = Source("batch", "output", "labels", process=has_label)


class PerToken(Task):
    """What tasks share that predict something of each token: int64 `(rows, tokens)`, else -100."""

    per_token: ClassVar[bool] = True
    label_of: ClassVar[str] = "words"

    def mask(self, batch: Any) -> Source | None:
        """The tokens that have a label; those that are no padding where no labels are given."""
        if isinstance(entry(batch, "labels"), Tensor):
            return LABELLED
        return self.padding(batch)

    def counted(self, batch: Any, predicted: Tensor) -> Tensor | None:
        """Which tokens are measured; `None` where there are neither labels nor a mask for each."""
        labels = labels_of(batch)
        if labels is not None:
            per_token = labels.dim() > 1 and labels.shape == predicted.shape[:-1]
            return has_label(labels) if per_token else None
        mask = entry(batch, "attention_mask")
        if mask is None or predicted.dim() < 3 or mask.shape != predicted.shape[:-1]:
            return None
        return mask.bool()

    def takes_metric(self, owner: Task | None, options: Mapping[str, Any]) -> bool:
        """Also those of classes, which are given token by token."""
        of_classes = isinstance(owner, Classification) and bool(options.get("num_classes"))
        return of_classes or super().takes_metric(owner, options)


def fused_label_term(model: nn.Module, label_smoothing: float) -> Term | None:
    """Cross-entropy without making the logits; `None` where the head is not linear."""
    head = None if label_smoothing else linear_head(model)
    if head is None:
        return None
    fused = {"student": f"student.layer_input:{head}", "student_head": f"student.head:{head}"}
    return Term(FusedLinearCrossEntropy(), {**fused, "labels": "batch.labels"})


class LanguageModelling(PerToken):
    """Tokens: the label of a position is the token that follows it, or -100."""

    name: ClassVar[str] = "language_modelling"
    heads: ClassVar[Mapping[str, str]] = {
        "ForCausalLM": "AutoModelForCausalLM",
        "LMHeadModel": "AutoModelForCausalLM",
    }
    peft_task: ClassVar[str | None] = "CAUSAL_LM"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ()
    has_names: ClassVar[bool] = False
    predicts_ids: ClassVar[bool] = True
    label_of: ClassVar[str] = "tokens"
    predicts_next: ClassVar[bool] = True

    def config_fields(self, default: Any) -> dict[str, Any]:
        """A decoder: an encoder would see the tokens that it is to predict."""
        return {"is_decoder": True} if "is_decoder" in default.to_dict() else {}

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Labels are tokens; only what begins a text is settled, which is another number here."""
        if getattr(config, "bos_token_id", None) is not None:
            # A number of the default vocabulary, which may be another token of this one or none.
            config.bos_token_id = config.eos_token_id

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Terms:
        """Cross-entropy without making the logits, where the model has a linear head."""
        return fused_label_term(model, label_smoothing) or super().label_term(
            model, label_smoothing
        )
