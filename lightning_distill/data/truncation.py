"""How many rows were cut at their longest length, and what is said of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

log = logging.getLogger("lightning_distill")

# A share above which it is a warning.
MANY = 0.02


def cut_rows(encoded: Any, texts: Sequence[Sequence[str]], tokenizer: Any, most: int) -> np.ndarray:
    """Which of some texts a tokenizer has cut, shape (rows,).

    Args:
        encoded: what it made of them.
        texts: one list, or two for pairs.
        tokenizer: one of transformers.
        most: tokens of a row.
    """
    if getattr(encoded, "encodings", None) is not None:
        return np.array([bool(one.overflowing) for one in encoded.encodings])
    # One that is written in Python does not say; rows of fewer tokens were not cut.
    found = np.array([len(ids) >= most for ids in encoded["input_ids"]])
    full = np.flatnonzero(found)
    if len(full):
        again = tokenizer(*([part[i] for i in full.tolist()] for part in texts), verbose=False)
        found[full] = [len(ids) > most for ids in again["input_ids"]]
    return found


def say_cut(
    cut: Mapping[str, int],
    rows: Mapping[str, int],
    most: int,
    what: str = "rows",
    more: str = "",
    option: str = "max_length",
) -> None:
    """Say how many rows of each split were cut: a warning if they are many, nothing if none were.

    Args:
        cut: by the name of a split.
        rows: of each split, cut or not.
        most: tokens of a row.
        what: they are called.
        more: what is lost with them.
        option: of the data, by which they were cut.
    """
    found = {name: count for name, count in cut.items() if count}
    if not found:
        return
    shares = {name: count / rows[name] for name, count in found.items()}
    parts = [
        f"{count:,} of {rows[name]:,} {name} {what} ({_percent(shares[name])})"
        for name, count in found.items()
    ]
    text = f"data.{option}={most} tokens cuts {', '.join(parts)}{more}"
    if max(shares.values()) > MANY:
        log.warning("%s. To read more of them, raise data.%s.", text, option)
    else:
        log.info("%s", text)


def counts_of_cut(cut: Mapping[str, int], what: str = "rows") -> dict[str, int]:
    """The same for the report."""
    return {f"{name} {what} cut by max_length": count for name, count in cut.items() if count}


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
