"""Tokens of whole documents, and the bytes that each stands for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ragged import Ragged
from ..tokens import kept_tokens, texts_fingerprint
from .token_bytes import byte_level_sizes, sizes_by_offsets

# In characters: less is tokenised in a second; of more than that, one is told how far it is.
WORTH_KEEPING, LONG = 2_000_000, 5_000_000


def document_tokens(columns: Mapping[str, Sequence[Any]], encode: Any) -> dict[str, Ragged]:
    """Tokens of all documents, one row for each; nothing is cut.

    From 2 MB of text on the result is kept, see [`tokenise`][].

    Args:
        columns: of the documents, each of the same length.
        encode: makes tokens of some of them, as [`DocumentEncoder`][] does; its `about` says in
            words what it does, and `tokenizer` by what.
    """
    told = [[str(value) for value in column] for column in columns.values()]
    size = sum(len(text) for column in told for text in column)
    name = texts_fingerprint([[encode.about], *told], encode.tokenizer, None)
    # A hundred megabytes at once would be a gigabyte of tokens.
    per_batch = max(1, min(1000, int(10_000_000 / max(size / max(len(told[0]), 1), 1))))
    given: dict[str, list[Any]] = {key: list(column) for key, column in columns.items()}
    return kept_tokens(
        given, encode, name, size >= WORTH_KEEPING, batch_size=per_batch, bar=size >= LONG
    )


class DocumentEncoder:
    """Makes tokens of some texts, with the end token behind each.

    What looks like a special token in a text is text.

    Args:
        tokenizer: a fast one of transformers, with an end token.
    """

    about = "texts"

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.sizes = tokenizer, byte_level_sizes(tokenizer)
        # Texts are long, and are not cut here: no warning for each of them.
        self.options = {
            "split_special_tokens": True,
            "return_attention_mask": False,
            "return_token_type_ids": False,
            "verbose": False,
        }

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[np.ndarray]]:
        """`input_ids` and `bytes` of each document.

        Args:
            batch: a list `text`, and a list `end` of which of them get an end token.
        """
        texts = list(batch["text"])
        # Offsets are many objects of Python; where the tokens themselves tell, there are none.
        table = self.sizes
        found = self.tokenizer(texts, return_offsets_mapping=table is None, **self.options)
        ids, bytes_ = [], []
        for i, (text, end) in enumerate(zip(texts, batch["end"], strict=True)):
            own = np.asarray(found["input_ids"][i], dtype=np.int64)
            if table is None:
                sizes = sizes_by_offsets(text, found["offset_mapping"][i])
            else:
                sizes = table[own]
                if sizes.sum() != len(text.encode()):
                    # It normalises, or puts a space before the text.
                    again = self.tokenizer(text, return_offsets_mapping=True, **self.options)
                    sizes = sizes_by_offsets(text, again["offset_mapping"])
            eos = self.tokenizer.eos_token_id
            if end and not (len(own) and own[-1] == eos):
                # A text of which nothing is left, such as a space, counts with its end.
                sizes = np.append(sizes, 0 if len(own) else len(text.encode()))
                own = np.append(own, eos)
            ids.append(own.astype(np.int32))
            bytes_.append(sizes.astype(np.int32))
        return {"input_ids": ids, "bytes": bytes_}
