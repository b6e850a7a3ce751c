"""Tokens of whole documents, and the bytes that each stands for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .ragged import Ragged
from .token_bytes import byte_level_sizes, sizes_by_offsets
from .tokens import kept_tokens, texts_fingerprint

# In characters: less is tokenised in a second; of more than that, one is told how far it is.
WORTH_KEEPING, LONG = 2_000_000, 20_000_000


def document_tokens(
    texts: Sequence[str], tokenizer: Any, ends: Sequence[bool] | None = None
) -> dict[str, Ragged]:
    """`input_ids` of each document with the end token behind it, and the `bytes` of each token.

    Nothing is cut. What looks like a special token in a text is text. From 2 MB on the result is
    kept, see [`tokenise`][].

    Args:
        texts: of the documents.
        tokenizer: a fast one of transformers, with an end token.
        ends: which documents get an end token; all by default.
    """
    size = sum(map(len, texts))
    made = [True] * len(texts) if ends is None else list(ends)
    encode = DocumentEncoder(tokenizer)
    name = texts_fingerprint([texts, [str(end) for end in made]], tokenizer, None)
    # A hundred megabytes at once would be a gigabyte of tokens.
    per_batch = max(1, min(1000, int(10_000_000 / max(size / max(len(texts), 1), 1))))
    columns: dict[str, list[Any]] = {"text": list(texts), "end": made}
    return kept_tokens(
        columns, encode, name, size >= WORTH_KEEPING, batch_size=per_batch, bar=size >= LONG
    )


class DocumentEncoder:
    """What makes tokens of some documents.

    Args:
        tokenizer: a fast one of transformers, with an end token.
    """

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
