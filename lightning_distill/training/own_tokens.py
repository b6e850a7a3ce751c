"""Layers are not compared token by token where each model reads tokens of its own."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.batch import entry, teacher_entries
from ..models.source import Source
from ..objective.term import Term
from .values import Values


def check_tokens(terms: Mapping[str, Term], batch: Any, values: Values) -> None:
    """Refuse terms that would compare the first token of one text with the first of the other.

    Logits are left out: of words with tags the batch says which tokens are compared, and those of
    language models are refused by what their ids mean.

    Args:
        terms: of an objective, by name.
        batch: in which the teacher may have tokens of its own.
        values: of every source.

    Raises:
        ValueError: naming the term.
    """
    own, ids = teacher_entries(batch), entry(batch, "input_ids")
    theirs = None if own is None else entry(own, "input_ids")
    if not isinstance(theirs, Tensor) or not isinstance(ids, Tensor):
        return
    shapes = {"student": ids.shape, "teacher": theirs.shape}
    for name, term in terms.items():
        if term.criterion.any_classes:
            continue
        read = {s.role for s in term.sources() if _is_per_token(s, values.get(s), shapes)}
        if read == {"student", "teacher"}:
            raise ValueError(
                f"Term {name!r} compares layers token by token, and the teacher reads tokens of "
                "its own: they stand for different pieces of text. Give both models one tokenizer "
                "(data.tokenizer=TEACHER with a fresh student), or compare logits alone."
            )


def _is_per_token(source: Source, value: Any, shapes: Mapping[str, Any]) -> bool:
    if source.role not in shapes or (source.kind, source.name) == ("output", "logits"):
        return False
    tensor = value[0] if isinstance(value, list) and value else value
    if not isinstance(tensor, Tensor) or tensor.dim() < 3:
        return False
    rows, tokens = shapes[source.role]
    is_map = tensor.dim() == 4 and tensor.shape[2:] == (tokens, tokens)
    return is_map or tensor.shape[:2] == (rows, tokens)
