"""The embeddings of a model of transformers; every model may be asked, also one that refuses."""

from collections.abc import Callable
from typing import Any

from torch import nn, Tensor

from .batch import entry, row_numbers, teacher_entries
from .configuration import longest_input
from .submodules import innermost


def input_embeddings(model: nn.Module | None) -> nn.Module | None:
    """What makes vectors of tokens; `None` if the model does not say."""
    return _asked(model, "get_input_embeddings")


def output_embeddings(model: nn.Module | None) -> nn.Module | None:
    """What makes logits of tokens; `None` if the model does not say."""
    return _asked(model, "get_output_embeddings")


def generates(model: nn.Module | None) -> bool:
    """Whether a model writes texts by `generate`."""
    inner = innermost(model)
    return (
        callable(getattr(inner, "generate", None)) and _answer(inner, "can_generate") is not False
    )


def vocabulary_size(model: nn.Module | None) -> int | None:
    """How many token ids a model knows; `None` if it does not say."""
    size = getattr(input_embeddings(model), "num_embeddings", None)
    return size if isinstance(size, int) else None


def _asked(model: nn.Module | None, getter: str) -> nn.Module | None:
    found = _answer(innermost(model), getter)
    return found if isinstance(found, nn.Module) else None


def _answer(model: Any, method: str) -> Any:
    ask: Callable[[], Any] | None = getattr(model, method, None)
    try:
        return ask() if callable(ask) else None
    except Exception:
        # A method that a class inherits may refuse, as those of transformers do where they find
        # no embeddings; whether there are any is only a question here.
        return None


def check_largest_id(largest: int, model: nn.Module, role: str, where: str, rows: str = "") -> None:
    """Refuse a token id that the model's embedding does not have."""
    size = vocabulary_size(model)
    if size is not None and largest >= size:
        raise ValueError(
            f"The {role} knows {size} token ids, but the {where} holds id {largest}{rows}: its "
            "tokenizer is another one. Give each model its own tokenizer "
            "(data.tokenizer for the student, data.teacher_tokenizer for the teacher)."
        )


def _rows_beyond(ids: Tensor, model: nn.Module, batch: Any) -> str:
    """The rows with ids that the embedding does not have, if rows have numbers."""
    size, numbers = vocabulary_size(model), row_numbers(batch)
    if size is None or numbers is None or numbers.shape != ids.shape[:1]:
        return ""
    rows = numbers[(ids >= size).reshape(len(ids), -1).any(dim=1)]
    return f" in rows {rows.tolist()[:8]} of input_ids" if len(rows) else ""


def check_vocabulary(batch: Any, model: nn.Module | None, role: str) -> None:
    """Refuse token ids that the embedding does not have; torch's own error names none."""
    if model is None:
        return
    teacher_batch = teacher_entries(batch) if role == "teacher" else None
    ids = entry(batch if teacher_batch is None else teacher_batch, "input_ids")
    if not isinstance(ids, Tensor) or ids.is_floating_point():
        return
    if ids.numel():
        check_largest_id(int(ids.max()), model, role, "batch", _rows_beyond(ids, model, batch))
    longest = longest_input(model)
    if longest is not None and ids.dim() and ids.shape[-1] > longest:
        raise ValueError(
            f"The {role} reads at most {longest} tokens, but the batch has rows of "
            f"{ids.shape[-1]}. Lower data.max_length."
        )
