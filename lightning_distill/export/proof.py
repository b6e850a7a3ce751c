"""What an exported model is given before and after it was written, and how far it may differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.configuration import configured, configured_text, is_encoder_decoder
from ..models.embeddings import generates
from ..models.signature import accepts
from .plain import Plain

Tensors = Mapping[str, Tensor]


@dataclass
class Proof:
    """A model beside inputs and what it answers to them.

    Attributes:
        plain: the model, in eval mode.
        inputs: rows that it is exported and compared with.
        on: what these are, in words.
        answers: to `inputs`.
        other: rows of another number and another length, and the answers to them, which show that
            a program takes these.
    """

    plain: Plain
    inputs: Tensors
    on: str
    answers: Tensors
    other: tuple[Tensors, Tensors]

    @classmethod
    def of(cls, model: Any, inputs: Tensors, on: str, pooling: str | None = None) -> "Proof":
        """What a model answers to these inputs.

        Args:
            model: in eval mode.
            inputs: by the names of its arguments; one row is enough.
            on: what they are, in words.
            pooling: see [`Plain`][lightning_distill.export.plain.Plain].
        """
        plain = Plain(model, tuple(inputs), pooling).eval()
        other = widened(inputs)
        return cls(plain, inputs, on, plain.answers(inputs), (other, plain.answers(other)))

    def example(self) -> Tensors:
        """Inputs to trace with: at least two rows, as one would stand for one alone."""
        rows = next(iter(self.inputs.values())).shape[0]
        return {n: v if rows > 1 else torch.cat([v, v]) for n, v in self.inputs.items()}

    def cases(self) -> list[tuple[Tensors, Tensors]]:
        """Inputs and answers, of both sizes."""
        return [(self.inputs, self.answers), self.other]


def widened(inputs: Tensors) -> dict[str, Tensor]:
    """The first row and the last one, one row more than there were, and fewer tokens.

    Of rows of one or two tokens there are more tokens instead: the last one is repeated.
    """
    found = {}
    for name, value in inputs.items():
        rows = torch.cat([value, value[:1]])
        if value.dim() == 2:
            tokens = value.shape[1]
            rows = rows[:, : tokens - 1] if tokens > 2 else torch.cat([rows, rows[:, -1:]], dim=1)
        found[name] = rows.contiguous()
    return found


def largest_difference(found: Tensors, expected: Tensors) -> tuple[float, float]:
    """The largest difference of any number, and the same relative to the largest number.

    The second one divides by 1 where all numbers are smaller.

    Raises:
        ValueError: if a name is missing, if shapes differ, or if a number is not finite where
            ours is.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise ValueError(f"It returns {', '.join(found)} and not {', '.join(missing)}.")
    absolute = relative = 0.0
    for name, right in expected.items():
        value = found[name]
        if value.shape != right.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(right.shape)}.")
        known = right.isfinite()
        if not bool((value.isfinite() | ~known).all()):
            raise ValueError(f"{name} is not finite.")
        difference = float((value - right)[known].abs().max()) if known.any() else 0.0
        size = float(right[known].abs().max()) if known.any() else 0.0
        absolute = max(absolute, difference)
        relative = max(relative, difference / max(1.0, size))
    return absolute, relative


def example_inputs(model: Any) -> dict[str, Tensor]:
    """One row of what a model of transformers reads: tokens, a picture, or a sound.

    A model with an encoder and a decoder is also given the first tokens of what it writes.

    Raises:
        ValueError: for a model that reads something else.
    """
    name = model.main_input_name
    known = min(configured_text(model, "vocab_size") or 1, 1000)
    ids = torch.arange(1, known)[:32].reshape(1, -1)
    writes = is_encoder_decoder(model) and generates(model) and accepts(model, "decoder_input_ids")
    written = {"decoder_input_ids": ids[:, :8]} if writes else {}
    if name == "input_ids":
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **written}
    bins, places = configured(model, "num_mel_bins"), configured(model, "max_source_positions")
    if name == "input_features" and bins and places:
        # As Whisper reads: its first layers halve the time.
        generator = torch.Generator().manual_seed(0)
        return {name: torch.rand((1, bins, 2 * places), generator=generator), **written}
    if name == "pixel_values":
        size = configured(model, "image_size") or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (1, configured(model, "num_channels") or 3, height, width)
        values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return {"pixel_values": values, **written}
    raise ValueError(
        f"job=export compares what {type(model).__name__} returns before and after it was written, "
        f"for tokens, pictures or spectrograms, and this model reads {name!r}. Save it by its "
        "save_pretrained; the weights are in the run's student/."
    )
