"""Tokens of texts, made once and found again by what made them."""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import datasets
import numpy as np
import pyarrow

from .cache_folder import cache_folder
from .ragged import Ragged
from .tokenizer_fingerprint import tokenizer_fingerprint
from .truncation import cut_rows

log = logging.getLogger("lightning_distill")

# Fewer rows are tokenised in a fraction of a second.
LEAST = 1000
# The column that says which rows are cut, beside those of the tokenizer.
CUT = "is cut"


class Tokens(dict[str, Ragged]):
    """Columns of tokens by name.

    Attributes:
        cut: which rows are cut, shape (rows,).
    """

    cut: np.ndarray = np.zeros(0, dtype=bool)


def tokenise(texts: Sequence[Sequence[str]], tokenizer: Any, max_length: int) -> Tokens:
    """What the tokenizer makes of texts, or of pairs of them: `input_ids` and what comes with it.

    From 1,000 rows on the result is kept in the folder `tokens` of [`cache_folder`][] under a hash
    of the texts, the tokenizer and `max_length`, and is found there by the next run; the folder may
    be deleted. Where it cannot be written or read, it is made in memory. A tokenizer that is
    written in Python is not trusted to be known by its hash.

    Args:
        texts: one list, or two of the same length for pairs.
        tokenizer: one of transformers, with a pad token.
        max_length: longer rows are cut, in tokens.
    """

    def tokens(batch: Mapping[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer(*batch.values(), truncation=True, max_length=max_length)
        cut = cut_rows(encoded, list(batch.values()), tokenizer, max_length)
        found = dict(encoded.items())
        for i, row in enumerate(found["input_ids"]):
            if not row:
                # An empty text, and no special tokens: attention to nothing would be NaN.
                for name in found:
                    found[name][i] = [0]
                found["input_ids"][i] = [tokenizer.pad_token_id]
                found["attention_mask"][i] = [1]
        return {**found, CUT: [[int(one)] for one in cut]}

    least = LEAST if getattr(tokenizer, "is_fast", False) else math.inf
    columns: dict[str, list[Any]] = {f"text {i}": list(part) for i, part in enumerate(texts)}
    name = texts_fingerprint(texts, tokenizer, max_length)
    made = Tokens(kept_tokens(columns, tokens, name, keep=len(texts[0]) >= least))
    made.cut = made.pop(CUT).values > 0
    return made


def kept_tokens(
    columns: dict[str, list[Any]],
    tokens: Callable[[Any], Mapping[str, Any]],
    name: str,
    keep: bool,
    batch_size: int = 1000,
    bar: bool = False,
) -> dict[str, Ragged]:
    """What `tokens` makes of all rows, from the folder of the cache if it was made before.

    Args:
        columns: what it is made of, each of the same length.
        tokens: is given some rows of the columns and returns, by name, a list for each
            row, or for each of the several that it makes of one.
        name: a digest of the columns and of all that decides what is made.
        keep: false makes it in memory.
        batch_size: how many rows `tokens` is given at once.
        bar: show how far it is.
    """
    rows = datasets.Dataset.from_dict(columns)
    made: dict[str, Any] = {
        "batched": True,
        "batch_size": batch_size,
        "remove_columns": list(columns),
        "new_fingerprint": name,
        "desc": "tokens",
    }
    with_bars = datasets.is_progress_bar_enabled()
    if not bar:
        datasets.disable_progress_bars()
    try:
        if keep:
            path = cache_folder() / "tokens" / f"{name}.arrow"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # Written aside and renamed by datasets: no other process finds half of it.
                kept = _arrays(rows.map(tokens, cache_file_name=str(path), **made))
                if len(kept["input_ids"]) < len(rows):
                    raise OSError(f"{path} has {len(kept['input_ids'])} rows, not {len(rows)}")
                return kept
            except (OSError, KeyError, pyarrow.ArrowException) as error:
                first = (str(error).splitlines() or [type(error).__name__])[0]
                _say_once(str(path.parent), first)
                _forget(path)
        return _arrays(rows.map(tokens, keep_in_memory=True, **made))
    finally:
        if with_bars:
            datasets.enable_progress_bars()


def texts_fingerprint(
    texts: Sequence[Sequence[str]], tokenizer: Any, max_length: int | None
) -> str:
    """SHA-256, in hex, of texts, of a tokenizer and of how it is used."""
    digest = hashlib.sha256(tokenizer_fingerprint(tokenizer).encode())
    libraries = [version(name) for name in ("tokenizers", "transformers")]
    # The column of cut rows is not in files that were kept without it.
    cut = "" if max_length is None else CUT
    digest.update(f"{max_length} {len(texts)} {libraries}{cut}\n".encode())
    for part in texts:
        for text in part:
            encoded = text.encode(errors="surrogatepass")
            digest.update(b"%d " % len(encoded))
            digest.update(encoded)
    return digest.hexdigest()


def _arrays(rows: datasets.Dataset) -> dict[str, Ragged]:
    found = {}
    for name in rows.column_names:
        chunks = rows.data.column(name).chunks
        lengths = [chunk.value_lengths().to_numpy() for chunk in chunks]
        values = [chunk.flatten().to_numpy() for chunk in chunks]
        found[name] = Ragged.split(np.concatenate(values), np.concatenate(lengths))
    return found


_said: set[str] = set()


def _say_once(folder: str, reason: str) -> None:
    if folder not in _said:
        _said.add(folder)
        log.warning(
            "tokens cannot be kept in %s (%s): every run tokenises anew. Make room there, or set "
            "LIGHTNING_DISTILL_CACHE to another folder.",
            folder,
            reason,
        )


def _forget(path: Any) -> None:
    """A file that cannot be read is written anew next time."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
