"""How each of the teacher's answers is written, from the words of a configuration."""

from collections.abc import Callable
from functools import partial

from ..cache import Full, Sampled, TopK
from ..cache.answer import Encoding
from ..models.forward import PREDICTED

LOGITS = ("full", "top_k", "sampled")


def encoding_of(
    logits: str = "full",
    dtype: str = "float32",
    hidden_dtype: str = "bfloat16",
    k: int = 64,
    draws: int = 64,
    temperature: float = 1.0,
) -> Callable[[str], Encoding]:
    """From the name of an answer to its encoding.

    Args:
        logits: `full`, `top_k` or `sampled`.
        dtype: of logits, full or top-k, and of pooled vectors.
        hidden_dtype: of everything else.
        k: how many logits `top_k` keeps.
        draws: how many classes `sampled` draws.
        temperature: at which top-k tails are exact and classes are drawn.

    Raises:
        ValueError: for words and numbers that name no encoding.
    """
    if logits not in LOGITS:
        raise ValueError(f"`logits` must be one of {', '.join(LOGITS)}, got {logits!r}.")
    of_logits: dict[str, Callable[[], Encoding]] = {
        "full": lambda: Full(dtype),
        "top_k": lambda: TopK(k, float(temperature), dtype),
        "sampled": lambda: Sampled(draws, float(temperature)),
    }
    return partial(_chosen, of_logits[logits](), Full(dtype), Full(hidden_dtype))


def _chosen(of_logits: Encoding, of_vectors: Encoding, others: Encoding, name: str) -> Encoding:
    # No lambda: a teacher that keeps its answers is sent to the processes of ddp_spawn.
    if name in PREDICTED:
        return of_logits
    return of_vectors if name.startswith("pooled:") else others
