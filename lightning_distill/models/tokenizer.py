"""What a tokenizer of transformers says of itself."""

import json
from typing import Any


def tokenizer_steps(tokenizer: Any) -> dict[str, Any] | None:
    """All steps of a fast tokenizer, as its `tokenizer.json` has them; the caller may change them.

    `None` for one that is written in Python: it says neither its steps nor where its tokens lie.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return None if backend is None else json.loads(backend.to_str())
