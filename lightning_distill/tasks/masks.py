"""Which tokens a term counts, where it compares token by token and names no mask itself."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..models.batch import entry
from ..models.capture import read
from ..models.source import Source
from ..objective.term import Term
from .task import PADDING, Task

log = logging.getLogger("lightning_distill")


def knows_what_counts(term: Term, task: Task) -> bool:
    """Whether a term says what counts: by a mask, by none, or by labels that it reads."""
    if term.counts_padding:
        return True
    by_labels = task.masked_by_labels and term.criterion.masked_by_labels
    return "mask" in term.inputs or (by_labels and "labels" in term.inputs)


def mask_terms(
    terms: Mapping[str, Term],
    task: Task,
    batch: Any,
    values: Mapping[Source, Any] | None = None,
) -> None:
    """Give the task's mask to every term that compares token by token and names none.

    Terms on logits or heads count the tokens that are predicted (`task.mask`), others those that
    are no padding (`task.padding`). Called before the models have run, it does the first alone,
    and only where the task predicts tokens; called with the values, it looks at the shapes.

    Args:
        terms: of an objective, by name; changed in place.
        task: that the batch is of.
        batch: as models are given it.
        values: of every source, once the models have run.

    Raises:
        ValueError: for a term that compares logits token by token, whose criterion takes no mask,
            where the batch has padding.
    """
    for name, term in terms.items():
        inputs = term.inputs
        if knows_what_counts(term, task):
            continue
        on_predictions = _reads_predictions(inputs)
        if values is None and not (on_predictions and task.per_token):
            continue
        mask = task.mask(batch) if on_predictions else _mask_of_layer(inputs, task, batch)
        if values is not None and not _is_per_token(inputs, values, mask or PADDING, batch):
            continue
        if mask is not None and term.criterion.takes_mask:
            inputs["mask"] = mask
            log.debug("Term %r counts by %s.", name, mask)
        elif values is not None and _is_unaware(inputs) and _has_padding(batch):
            _refuse(name, term, task)


def _mask_of_layer(inputs: Mapping[str, Source], task: Task, batch: Any) -> Source | None:
    own = next((source for source in inputs.values() if source.role == "student"), None)
    return task.padding(batch) if own is None else task.layer_mask(batch, own)


def _refuse(name: str, term: Term, task: Task) -> None:
    what = f"Term {name!r} compares logits token by token, and the batch has padding"
    if not task.per_token:
        raise ValueError(
            f"{what}, but the task is {task.name}, which has one label for each row: nothing says "
            "which tokens count. Name the right task, such as task=token_classification, or give "
            "the term a mask, as in mask=batch.attention_mask."
        )
    raise ValueError(
        f"{what}, and {term.criterion.class_name} takes no mask, so that padding would be "
        "learnt from. Choose a criterion with an argument `mask`, such as SoftTarget or LogitMSE, "
        "or pick the tokens that count in the `process` of a source."
    )


def _is_unaware(inputs: Mapping[str, Source]) -> bool:
    """Whether a term compares predictions of two models, and reads nothing of the batch beside."""
    reads_teacher = any(s.role == "teacher" for s in inputs.values())
    reads_batch = any(s.role == "batch" for s in inputs.values())
    return _reads_predictions(inputs) and reads_teacher and not reads_batch


def _reads_predictions(inputs: Mapping[str, Source]) -> bool:
    return any(
        s.role != "batch" and (s.kind in ("head", "sparse") or _is_logits(s))
        for s in inputs.values()
    )


def _is_logits(source: Source) -> bool:
    return (source.kind, source.name) == ("output", "logits")


def _is_per_token(
    inputs: Mapping[str, Source], values: Mapping[Source, Any], mask: Source, batch: Any
) -> bool:
    """Whether a tensor of the student has an entry for each token that a mask has."""
    # A mask may be made of the whole batch, as that of cross-attention is.
    tokens = entry(batch, mask.name) if mask.name else read(mask, batch, {})
    if not isinstance(tokens, Tensor) or tokens.dim() not in (2, 3):
        return False
    rows, length = tokens.shape[:2]
    for source in inputs.values():
        value = values.get(source)
        first = value[0] if isinstance(value, list) and value else value
        if source.role != "student" or not isinstance(first, Tensor) or first.dim() < 3:
            continue
        # Attention maps are (rows, heads, queries, keys).
        is_map = first.dim() == 4 and first.shape[2] == length
        # A mask of pairs may leave open how many keys there are.
        is_map &= tokens.shape[-1] == first.shape[-1] or tokens.shape[2:] == (1,)
        if first.shape[:2] == (rows, length) or (is_map and first.shape[0] == rows):
            return True
    return False


def _has_padding(batch: Any) -> bool:
    mask = entry(batch, "attention_mask")
    return isinstance(mask, Tensor) and not bool(mask.all())
