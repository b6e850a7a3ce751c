"""One vector for each row, made of the vectors of its tokens: pooled, mapped, and of length 1.

Which tokens count is read from the attention mask that the model itself was given, so that student
and teacher may have tokens of their own.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor
from torch.nn import functional as F

from .row_head import body_of, ROW_HEAD, row_head_of
from .signature import signature
from .submodules import unwrapped

POOLINGS = ("mean", "cls", "max", "last")
NORMALISED = "normalised"
# The part of a model that maps pooled vectors, where it has one.
DENSE = "sentence_dense"
# Under these names what was noted of a forward stands beside what layers returned.
MASK, MAP = "pooled_mask:", "pooled_map:"
BODY, HEAD = "pooled_body:", "pooled_head:"


def check_pooling(name: str, text: str) -> None:
    """Refuse a way of pooling that there is not.

    Args:
        name: as `mean`, `mean,normalised` or `cls,row_head`.
        text: the whole source, for the error.
    """
    how, *more = name.split(",")
    if how in POOLINGS and more in ([], [NORMALISED], [ROW_HEAD]):
        return
    near = get_close_matches(how, POOLINGS, n=1)
    hint = f" Did you mean {near[0]}?" if near and how not in POOLINGS else ""
    raise ValueError(
        f"Source {text!r} must say how tokens are pooled: {', '.join(POOLINGS)}, and ,{NORMALISED} "
        f"behind it for vectors of length 1, as in student.pooled:mean,{NORMALISED}, or "
        f",{ROW_HEAD} for what a head for labels of whole rows makes of them.{hint}"
    )


def way_of_pooling(name: str) -> str:
    """How tokens are pooled, whatever is done to their vector then: `mean` of `mean,normalised`."""
    return name.partition(",")[0]


def of_length(vectors: Float[Tensor, "rows width"], name: str) -> Float[Tensor, "rows width"]:
    """Vectors as `name` asks for them: of length 1, or as they are."""
    return F.normalize(vectors, dim=-1) if name.endswith(f",{NORMALISED}") else vectors


def pooled(
    hidden: Float[Tensor, "rows tokens width"],
    mask: Bool[Tensor, "rows tokens"] | Int[Tensor, "rows tokens"] | None,
    how: str = "mean",
) -> Float[Tensor, "rows width"]:
    """One vector for each row, in float32 at least.

    Args:
        hidden: the last hidden states.
        mask: true for tokens that count; `None` if all do.
        how: `mean` and `max` over the tokens that count, `cls` the first and `last` the last of
            them. A row without any is zeros.

    References:
        Reimers and Gurevych, *Sentence-BERT*, 2019, https://arxiv.org/abs/1908.10084, section 3.
    """
    if hidden.dtype not in (torch.float32, torch.float64):
        hidden = hidden.float()
    counted = hidden.new_ones(hidden.shape[:2], dtype=torch.bool) if mask is None else mask != 0
    inside = counted[..., None]
    if how == "mean":
        return hidden.where(inside, 0.0).sum(1) / inside.sum(1).clamp(min=1)
    if how == "max":
        largest = hidden.masked_fill(~inside, -torch.inf).amax(1)
        return largest.where(inside.any(1), 0.0)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    if how == "cls":
        at = places.where(counted, hidden.shape[1]).amin(1).clamp(max=hidden.shape[1] - 1)
    else:
        at = places.where(counted, -1).amax(1).clamp(min=0)
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, at].where(inside.any(1), 0.0)


class Dense(nn.Module):
    """What maps pooled vectors to another width; sentence-transformers calls it so too.

    Args:
        student_width: of pooled vectors.
        width: of those that it returns.
        bias: whether something is added.
        activation: what follows: `identity`, `tanh`, `relu` or `gelu`.
    """

    ACTIVATIONS: ClassVar[dict[str, Any]] = {
        "identity": nn.Identity,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "gelu": nn.GELU,
    }

    def __init__(
        self, student_width: int, width: int, bias: bool = True, activation: str = "identity"
    ):
        super().__init__()
        if activation not in self.ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {', '.join(self.ACTIVATIONS)}, got {activation!r}."
            )
        self.linear = nn.Linear(student_width, width, bias)
        self.name, self.activation = activation, self.ACTIVATIONS[activation]()

    def forward(self, vectors: Float[Tensor, "rows _"]) -> Float[Tensor, "rows width"]:
        """The vectors of another width."""
        return self.activation(self.linear(vectors.to(self.linear.weight.dtype)))


def dense_of(model: Any) -> Dense | None:
    """What maps a model's pooled vectors; `None` if nothing does."""
    found = getattr(unwrapped(model), DENSE, None)
    return found if isinstance(found, Dense) else None


def give_dense(model: nn.Module, dense: Dense) -> nn.Module:
    """The model with a part that maps its pooled vectors and is trained with it."""
    unwrapped(model).add_module(DENSE, dense)
    return model


def note_tokens(model: nn.Module, found: dict[str, Any]) -> list[Any]:
    """Note, while a model runs, which tokens count and what reads its vectors; returns the hooks.

    Of a model with a head for labels of whole rows also what its body returns, which the model
    itself may keep.
    """

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        by_place = dict(zip(signature(module).positional, args, strict=False))
        found[MASK] = {**by_place, **kwargs}.get("attention_mask")
        found[MAP], found[HEAD] = dense_of(module), row_head_of(module)

    def body_hook(module: nn.Module, args: Any, output: Any) -> None:
        found[BODY] = output

    hooks = [model.register_forward_pre_hook(hook, with_kwargs=True)]
    if row_head_of(model) is not None:
        hooks.append(body_of(model).register_forward_hook(body_hook))
    return hooks


def read_pooled(
    source: Any, outputs: Any, captured: Mapping[str, Any]
) -> Float[Tensor, "rows width"]:
    """The vectors that a source names, from what a model returned and what was noted of it.

    Of `row_head` the logits that this head makes of them.

    Raises:
        ValueError: for a model that returns no hidden state for each token that it was given, and
            for one that has no such head, or one for vectors that are pooled in another way.
    """
    how, _, option = source.name.partition(",")
    head = captured.get(HEAD)
    if option == ROW_HEAD:
        outputs = captured.get(BODY, outputs)
        if head is None:
            raise ValueError(
                f"{source} reads a head for labels of whole rows, and the {source.role} has none. "
                "Train one on data with such labels first: lightning-distill job=finetune "
                "data=token_files data.row_label=NAME."
            )
        if head.pooling != how:
            raise ValueError(
                f"{source} does not pool as the head was trained: write "
                f"{source.role}.pooled:{head.pooling},{ROW_HEAD}."
            )
    hidden = outputs.get("last_hidden_state") if isinstance(outputs, Mapping) else None
    if not isinstance(hidden, Tensor) or hidden.dim() != 3:
        raise ValueError(
            f"{source} pools what a model returns as last_hidden_state, (rows, tokens, width), and "
            f"the {source.role} returns none. Load it without a head: "
            f"{source.role}.auto_class=AutoModel."
        )
    mask = captured.get(MASK)
    if mask is not None and mask.shape != hidden.shape[:2]:
        raise ValueError(
            f"{source} pools {tuple(hidden.shape[:2])} tokens, and the {source.role} was given an "
            f"attention mask of {tuple(mask.shape)}: these are other tokens, as those of a decoder."
        )
    vectors = pooled(hidden, mask, how)
    if option == ROW_HEAD:
        assert head is not None
        return head(vectors)
    dense = captured.get(MAP)
    return of_length(vectors if dense is None else dense(vectors), source.name)
