"""A tokenizer's identity: a hash of what it makes of texts."""

import hashlib
import json
from typing import Any

from ..models.tokenizer import tokenizer_steps

PLAIN = (str, int, float, bool, type(None))


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256, in hex, the same in every process and before and after the tokenizer was used.

    Where it was loaded from does not matter, nor how long it says that texts may be.

    Args:
        tokenizer: one of transformers. Of one that is written in Python, only the vocabulary and
            the options are seen, not its code.
    """
    told: dict[str, Any] = {
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
        "special": sorted(
            (str(name), str(token)) for name, token in tokenizer.special_tokens_map.items()
        ),
        "inputs": list(tokenizer.model_input_names),
    }
    steps = tokenizer_steps(tokenizer)
    if steps is not None:
        told["backend"] = steps
        for name in ("truncation", "padding"):
            # Left behind by the last call, whatever it was.
            steps.pop(name, None)
    else:
        told["type"] = type(tokenizer).__qualname__
        told["vocabulary"] = sorted(tokenizer.get_vocab().items())
        told["options"] = {
            name: value
            for name, value in tokenizer.init_kwargs.items()
            if isinstance(value, PLAIN) and name not in ("name_or_path", "model_max_length")
        }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
