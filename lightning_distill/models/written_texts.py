"""Texts that an encoder-decoder writes, and how sure it is of them."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, Tensor

from ..log_lines import saying
from .configuration import is_encoder_decoder, pad_token
from .decoder_inputs import decoder_inputs, mask_of_labels, UNLABELLED
from .embeddings import generates
from .generation import evaluating
from .inputs import call_model
from .submodules import innermost


@dataclass(frozen=True)
class Writing:
    """How texts are written: the likeliest token each time, or a search of several texts.

    Attributes:
        max_new_tokens: of a text at most.
        beams: how many texts a search follows.
    """

    max_new_tokens: int = 64
    beams: int = 1

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "beams"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of 1 at least, got {value!r}.")


def check_writes(model: nn.Module, what: str) -> None:
    """Refuse a model that writes no text from a source.

    Args:
        model: any.
        what: needs the texts, for the error.

    Raises:
        ValueError: naming the class.
    """
    if not (is_encoder_decoder(model) and generates(model)):
        raise ValueError(
            f"{what} reads texts that a model writes from a source, and a "
            f"{type(innermost(model)).__name__} is no encoder-decoder that generates. Take one "
            "such as T5, BART or Whisper, or leave this out."
        )


@torch.no_grad()
def write_texts(model: nn.Module, inputs: Mapping[str, Any], how: Writing) -> Tensor:
    """What a model writes from sources; int64 `(rows, tokens)`, -100 behind a text.

    All else is as the model's own `generation_config` says, such as which language a text begins
    with. The token that every text starts with is left out, and the end is not.

    Args:
        model: an encoder-decoder of transformers; left as it was.
        inputs: what it is given in training; what its decoder reads of it is not used.
        how: how they are written.
    """
    inner: Any = innermost(model)
    own = {n: v for n, v in inputs.items() if not n.startswith("decoder_") and n != "labels"}
    config = copy.deepcopy(inner.generation_config)
    pad = pad_token(model)
    config.update(
        max_new_tokens=how.max_new_tokens,
        max_length=None,
        num_beams=how.beams,
        do_sample=False,
        use_cache=True,
        return_dict_in_generate=False,
        pad_token_id=config.pad_token_id if pad is None else pad,
    )
    # Of each batch it would say again which of two lengths counts, and of Whisper what the model
    # itself does with its settings.
    with evaluating(model), saying(_is_error, "transformers.generation.utils"):
        written = inner.generate(**own, generation_config=config)
    start = config.decoder_start_token_id
    if written.shape[1] and start is not None and bool((written[:, 0] == start).all()):
        written = written[:, 1:]
    return _without_padding(written, config.eos_token_id, config.pad_token_id)


@torch.no_grad()
def log_probabilities(model: nn.Module, inputs: Mapping[str, Any], written: Tensor) -> Tensor:
    """The mean log-probability of each text's tokens under a model, in nats; float32 `(rows,)`.

    Args:
        model: an encoder-decoder.
        inputs: the sources, as in [`write_texts`][].
        written: `(rows, tokens)`, -100 behind a text.
    """
    own = {n: v for n, v in inputs.items() if not n.startswith("decoder_") and n != "labels"}
    if not written.shape[1]:
        return torch.zeros(len(written))
    with evaluating(model):
        outputs = call_model(model, {**own, **decoder_inputs(written, model)}, {})
    counted = written != UNLABELLED
    scores = outputs["logits"].float().log_softmax(-1)
    found = scores.gather(-1, written.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (found * counted).sum(-1) / counted.sum(-1).clamp(min=1)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _without_padding(written: Tensor, ends: Any, pad: int | None) -> Tensor:
    """-100 behind the first end of each row."""
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    if not ends and pad is None:
        return written
    if not ends:
        real = mask_of_labels(written.masked_fill(written.eq(int(pad or 0)), UNLABELLED)).bool()
        return written.masked_fill(~real, UNLABELLED)
    is_end = torch.isin(written, torch.tensor(ends, device=written.device)).long()
    behind = is_end.cumsum(dim=1) - is_end > 0
    return written.masked_fill(behind, UNLABELLED)
