"""The texts of test rows, for a reader of the report."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.data import DataFacts
from ..models.batch import entry, row_numbers

ROW_TEXTS = "row_texts.json"
# Letters of a text; more makes a table that nobody reads.
LONGEST = 400


def write_row_texts(directory: Path, data: Any, rows: Collection[int]) -> None:
    """Write `row_texts.json`: by the number of each row its text, as the student reads it.

    Nothing is written of rows that are no text.

    Args:
        directory: of the run.
        data: whose test rows are meant, with a tokenizer.
        rows: their numbers.
    """
    tokenizer = DataFacts(data).tokenizer
    left, found = set(rows), {}
    if tokenizer is None or not left:
        return
    for batch in data.test_dataloader():
        numbers, ids, mask = row_numbers(batch), entry(batch, "input_ids"), _mask(batch)
        if numbers is None or not isinstance(ids, Tensor) or len(ids) != len(numbers):
            return
        for i, number in enumerate(numbers.tolist()):
            if number in left:
                tokens = ids[i] if mask is None else ids[i][mask[i].bool()]
                text = str(tokenizer.decode(tokens, skip_special_tokens=True))
                found[str(number)] = text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
                left.discard(number)
        if not left:
            break
    if found:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        (directory / ROW_TEXTS).write_text(text, encoding="utf-8")


def _mask(batch: Any) -> Tensor | None:
    mask = entry(batch, "attention_mask")
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
