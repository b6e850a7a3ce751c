"""The tokens that a text had where it is masked."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from ..objective.term import Terms
from .language_modelling import fused_label_term, PerToken
from .task import Task


class MaskedLanguageModelling(PerToken):
    """Hidden tokens: int64 `(rows, tokens)`, the token that stood there, else -100.

    Devlin et al., *BERT*, 2019, https://arxiv.org/abs/1810.04805, section 3.1. Terms on logits,
    heads and metrics count the masked tokens; terms that compare layers count all that are no
    padding. Labels stand at their own position: nothing is shifted.
    """

    name: ClassVar[str] = "masked_language_modelling"
    heads: ClassVar[Mapping[str, str]] = {"ForMaskedLM": "AutoModelForMaskedLM"}
    # peft has none: its adapters are as for any model, and the head stays as it is.
    peft_task: ClassVar[str | None] = None
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ()
    has_names: ClassVar[bool] = False
    predicts_ids: ClassVar[bool] = True
    label_of: ClassVar[str] = "tokens"

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Nothing: labels are tokens."""

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Terms:
        """Cross-entropy without making the logits, where the model has a linear head."""
        return fused_label_term(model, label_smoothing) or Task.label_term(
            self, model, label_smoothing
        )
