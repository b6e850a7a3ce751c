"""Run a model, and read the tensors of sources from it."""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn, Tensor

from .batch import tensors
from .capture import capture, forward_options, read
from .head import check_head, shortened
from .source import matching, OF_LAYERS, OUTPUTS, Source
from .submodules import unwrapped

LOGITS = Source("teacher", "output", "logits")
# What heads call their predictions.
PREDICTED = ("logits", "start_logits", "end_logits")


def with_logits(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a model returned, with other logits; a mapping is changed in place."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, MutableMapping):
        outputs["logits"] = change(outputs["logits"])
        return outputs
    return (change(outputs[0]), *outputs[1:])


def run_model(
    model: nn.Module,
    forward: Callable[..., Any],
    batch: Any,
    sources: Sequence[Source],
    heads: str = "whole",
) -> tuple[Any, dict[Source, Any]]:
    """Run a model on a batch; returns its outputs, and the tensor of each source.

    Args:
        model: of either role.
        forward: runs it.
        batch: what it is run on.
        sources: of this model.
        heads: what heads do that a source names, where no source reads the logits: `whole` for
            all; `skipped` for no logits, which then have 0 classes; `checked` for those of the
            last position, from which it is seen that the model does nothing else to them.
    """
    named = [source for source in sources if source.kind == "head"]
    if heads == "whole" or any(_reads_logits(source, named) for source in sources):
        named = []
    shorter = shortened(model, [s.name for s in named], positions=int(heads == "checked"))
    before = [t.clone() for t in tensors(batch)] if heads == "checked" else []
    versions = _versions(batch) if model.training else []
    with capture(model, sources) as captured, shorter if named else nullcontext():
        outputs = forward(batch, **forward_options(model, sources))
    # Some do so in training only; values are not compared in each step.
    changed = bool(versions) and _versions(batch) != versions
    if changed or (before and not all(map(_is_same, before, tensors(batch)))):
        raise ValueError(
            f"{type(unwrapped(model)).__name__} changes its inputs in place, so that whatever "
            "reads the batch after it, such as the other model, would be given something else. "
            "Let it work on a copy, as in x = x.clone(), or override student_inputs and "
            "teacher_inputs so that they give it one."
        )
    for source in named if heads == "checked" else ():
        hidden = captured.get(f"layer_input:{source.name}")
        if hidden is not None:
            logits = read(replace(LOGITS, role=source.role), outputs, {})
            check_head(captured[str(source).partition(".")[2]], str(source), hidden, logits)
    return outputs, {source: read(source, outputs, captured) for source in sources}


def _versions(batch: Any) -> list[int]:
    """How often each tensor was written to, of those that count it."""
    return [t._version for t in tensors(batch) if not t.is_inference()]


def _is_same(before: Tensor, after: Tensor) -> bool:
    if not before.is_floating_point():
        return torch.equal(before, after)
    return torch.allclose(before, after, rtol=0, atol=0, equal_nan=True)


def _reads_logits(source: Source, heads: Sequence[Source]) -> bool:
    if source.kind in OUTPUTS:
        return not source.name.endswith((*OF_LAYERS, "hidden_state"))
    return source.kind == "layer" and any(matching(source.name, [h.name, ""]) for h in heads)


def kept_heads(sources: Iterable[Source]) -> list[str]:
    """Paths of heads from which the logits follow, with what they are given, and are not read."""
    sources = list(sources)
    heads = [source for source in sources if source.kind == "head"]
    if any(_reads_logits(source, heads) for source in sources):
        return []
    given = {source.name for source in sources if source.kind == "layer_input"}
    return [head.name for head in heads if head.name in given]
