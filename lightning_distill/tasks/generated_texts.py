"""Tokens of texts that a model has written, which have no labels."""

from typing import Any, ClassVar

from ..models.source import Source
from .language_modelling import LanguageModelling

MASK = Source("batch", "output", "loss_mask")


class GeneratedTexts(LanguageModelling):
    """Language modelling in which the entry `loss_mask` of a batch says what counts.

    Tokens that the student has written have no label, and are compared all the same.
    """

    name: ClassVar[str] = "generated_texts"
    masked_by_labels: ClassVar[bool] = False

    def mask(self, batch: Any) -> Source | None:
        """Tokens that are followed by one to be learnt from."""
        return MASK
