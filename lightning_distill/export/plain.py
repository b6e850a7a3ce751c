"""A model as a function of named tensors, which returns a dict of tensors and nothing else."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, Tensor

from ..models.configuration import configured
from ..models.pooling import dense_of, of_length, pooled, way_of_pooling
from ..models.signature import accepts

# What a model of an encoder and a decoder tells of its encoder is no answer.
OF_ENCODER = "encoder_"
VECTORS = "sentence_embedding"


class Plain(nn.Module):
    """A model that takes the tensors of these names, in this order or by name.

    Programs that are made of it know no class of transformers. They have no cache of keys and
    values.

    Args:
        model: in eval mode.
        names: of its inputs.
        pooling: how `last_hidden_state` becomes the `sentence_embedding` of a text, as in
            `mean,normalised`; `None` for a model that gives no vectors.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], pooling: str | None = None):
        super().__init__()
        self.model, self.names, self.pooling = model, names, pooling
        self.options = {"return_dict": True} if accepts(model, "return_dict") else {}
        if configured(model, "use_cache") is not None and accepts(model, "use_cache"):
            self.options["use_cache"] = False
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD

        def forward(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            return self._run({**dict(zip(names, args, strict=False)), **kwargs})

        # torch.export names the inputs of a program by it.
        forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind) for name in names]
        )
        self.forward = forward  # type: ignore[method-assign]

    def _run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.model(**given, **self.options)
        found = {
            name: value
            for name, value in outputs.items()
            if isinstance(value, Tensor) and not name.startswith(OF_ENCODER)
        }
        if self.pooling is None:
            return found
        hidden = found["last_hidden_state"]
        vectors = pooled(hidden, given.get("attention_mask"), way_of_pooling(self.pooling))
        dense = dense_of(self.model)
        vectors = of_length(vectors if dense is None else dense(vectors), self.pooling)
        # No vector comes from BERT's pooler, which was not trained.
        return {"last_hidden_state": hidden, VECTORS: vectors}

    @torch.no_grad()
    def answers(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What it returns, in float32, each in memory of its own."""
        return {n: v.float().clone().contiguous() for n, v in self(**inputs).items()}


def axes(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
    """The names of the dimensions whose size is free: rows, and tokens where there are any."""
    found = {}
    for name, value in inputs.items():
        tokens = "decoder_sequence" if name.startswith("decoder_") else "sequence"
        found[name] = {0: "batch", 1: tokens} if value.dim() == 2 else {0: "batch"}
    return found
