"""What the decoder of an encoder-decoder reads: the labels, one place later."""

from typing import Any

import torch
from torch import nn, Tensor

from .configuration import configured, is_encoder_decoder, pad_token
from .embeddings import generates
from .signature import input_names
from .submodules import innermost

UNLABELLED = -100


def moved_by_one(labels: Tensor, start: int, pad: int) -> Tensor:
    """Labels one place later, behind the token that a text starts with.

    Args:
        labels: `(rows, tokens)`, -100 where there is none.
        start: the first token of every row.
        pad: stands for -100.
    """
    moved = torch.full_like(labels, start)
    moved[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == UNLABELLED, pad)
    return moved


def mask_of_labels(labels: Tensor) -> Tensor:
    """1 up to the last label of each row, and for one token at least; int64 `(rows, tokens)`."""
    places = torch.arange(1, labels.shape[1] + 1, device=labels.device)
    last = ((labels != UNLABELLED) * places).amax(dim=1).clamp(min=1)
    return (places <= last[:, None]).long()


def decoder_inputs(labels: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """What the decoder of a model is given for labels, by name.

    A mask comes with it where the model takes one: which rows are beside a row changes nothing of
    what it is given.

    Args:
        labels: `(rows, tokens)`, -100 where there is none.
        model: an encoder-decoder.
    """
    own = getattr(innermost(model), "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        made = {"decoder_input_ids": own(labels=labels)}
    elif (first := first_token(model)) is not None:
        made = {"decoder_input_ids": moved_by_one(labels, **first)}
    else:
        # It makes them in its forward, and the loss as well.
        return {"labels": labels}
    if "decoder_attention_mask" in input_names(model):
        made["decoder_attention_mask"] = mask_of_labels(labels)
    return made


def first_token(model: nn.Module | None) -> dict[str, int] | None:
    """`start` and `pad` with which [`moved_by_one`][] makes what the decoder of a model reads.

    `None` if the model has no decoder beside an encoder, or makes something else of labels, as
    mBART does, which begins with the language.
    """
    if model is None or not is_encoder_decoder(model) or not generates(model):
        return None
    start, pad = configured(model, "decoder_start_token_id"), pad_token(model)
    if not isinstance(start, int) or not isinstance(pad, int):
        return None
    own: Any = getattr(innermost(model), "prepare_decoder_input_ids_from_labels", None)
    tried = torch.tensor([[3, 4, UNLABELLED]])
    if own is not None and not torch.equal(own(labels=tried), moved_by_one(tried, start, pad)):
        return None
    return {"start": start, "pad": pad}
