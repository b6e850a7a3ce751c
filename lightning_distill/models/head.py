"""The head of a language model: what makes logits of its last hidden states."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import nn, Tensor

from .configuration import configured_text
from .embeddings import generates, output_embeddings
from .peft_parts import has_adapter, trained_part
from .plain_tensors import is_quantized
from .submodules import innermost, submodules, unwrapped

# How the names of masked language models end, which generate no text.
MASKED = "ForMaskedLM"
# Their logits are a product with two weights one beside the other, and no layer makes them.
OF_TWO_WEIGHTS = ("MobileBertForMaskedLM",)


@dataclass(frozen=True)
class Head:
    r"""Weight and bias of a linear head, and what its model makes of their product.

    $$c \tanh(k (W h + b) / c)$$

    Attributes:
        weight: $W$, `(vocabulary, width)`.
        bias: $b$, `(vocabulary,)`, or `None`.
        scale: $k$.
        softcap: $c$; `None` leaves the logits as they are.
    """

    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... vocabulary"]:
        """The logits."""
        logits = nn.functional.linear(hidden, self.weight, self.bias) * self.scale
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()


def head_of(model: nn.Module, path: str) -> Head:
    """The head at a path of a model, with the scale and softcap that the model's config names.

    A head that peft trains whole (`modules_to_save`) is that which is trained.

    Raises:
        ValueError: if it does more than a linear layer, as one with adapters or in 4 bits does, or
            is quantised.
    """
    module = trained_part(submodules(model)[path])
    name = f"{path!r} of {type(unwrapped(model)).__name__}"
    if has_adapter(module):
        raise ValueError(
            f"{name} has adapters, so its logits cannot be made of its weight alone. Leave it out "
            f"of target_modules, train it whole (modules_to_save=[{path}]), or compare the logits: "
            "criteria such as soft_target on student.logits."
        )
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        raise ValueError(
            f"{name} is a {type(module).__name__} and not a plain "
            "nn.Linear, so its logits cannot be made of its weight alone. Name the submodule that "
            "is one, or compare the logits: criteria such as soft_target on student.logits."
        )
    if is_quantized(module.weight):
        raise ValueError(
            f"{name} is quantised ({type(module.weight).__name__}), and is needed in full "
            "precision here, as teacher.quantization leaves it. Quantise all but the head, or "
            "compare the logits: criteria such as soft_target on student.logits."
        )
    scale = float(configured_text(model, "logit_scale") or 1.0)  # of Cohere
    scale /= float(configured_text(model, "logits_scaling") or 1.0)  # of Granite
    softcap = configured_text(model, "final_logit_softcapping")  # of Gemma 2
    bias: Tensor | None = module.bias
    beside = _bias_beside(model)
    if beside is not None:
        bias = beside.flatten() if bias is None else bias + beside.flatten()
    return Head(module.weight, bias, scale, None if softcap is None else float(softcap))


def _bias_beside(model: nn.Module) -> Tensor | None:
    """What BART and Marian add to the logits that their head makes."""
    found = getattr(innermost(model), "final_logits_bias", None)
    return found if isinstance(found, Tensor) else None


def linear_head(model: nn.Module | None) -> str | None:
    """The path of the head that makes logits of tokens; `None` of others, and if it is not linear.

    That is what `get_output_embeddings` gives of a causal or a masked language model, of an
    encoder-decoder, or of a user's own class that generates texts.
    """
    name = type(innermost(model)).__name__
    if model is None or name in OF_TWO_WEIGHTS:
        return None
    if not (name.endswith(MASKED) or generates(model)):
        return None
    head = output_embeddings(model)
    parts = submodules(model).items()
    path = next((path for path, part in parts if part is head), None) if head else None
    if path is not None:
        try:
            head_of(model, path)
        except ValueError:
            return None
    return path


@contextmanager
def shortened(model: nn.Module, paths: Sequence[str], positions: int) -> Iterator[None]:
    """While it lasts, heads make logits of the last positions only; of none, for 0.

    A model that adds something to its logits is left those of one position: it adds it to as many
    classes as there are.
    """
    positions = max(positions, int(_bias_beside(model) is not None))
    parts = [submodules(model)[path] for path in paths]

    def take_last(part: nn.Module, args: tuple[Tensor]) -> Tensor:
        hidden = args[0]
        return hidden[..., hidden.shape[-2] - positions :, :]

    def take_none(given: list[Tensor]) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        def before(part: nn.Module, args: tuple[Tensor]) -> Tensor:
            # The tensor and not its shape: for numbers torch.compile would compile each batch anew.
            given.append(args[0])
            return args[0][..., :0, :]

        def after(part: nn.Module, args: tuple[Tensor], logits: Tensor) -> Tensor:
            return logits.new_zeros(*given.pop().shape[:-1], 0)

        return before, after

    # Hooks that read what a head is given were put there before, and so see all of it.
    handles = []
    for part in parts:
        if positions:
            handles.append(part.register_forward_pre_hook(take_last))
        else:
            before, after = take_none([])
            handles.append(part.register_forward_pre_hook(before))
            handles.append(part.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_head(head: Head, name: str, hidden: Any, logits: Any) -> None:
    """Refuse a head from which the logits that the model returned do not follow.

    Args:
        head: of the model.
        name: of its source.
        hidden: what the head was given.
        logits: what the model returned, of the last position alone.
    """
    with torch.no_grad():
        logits = logits.detach()
        expected = head(hidden[..., -1:, :])
        same = expected.shape == logits.shape
        off = float((expected - logits).abs().max()) if same else float("inf")
    within = 1e-3 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    if not same or off > within * float(logits.abs().max()):
        raise ValueError(
            f"The model returns other logits than follow from {name}: shapes "
            f"{tuple(logits.shape)} and {tuple(expected.shape)}, largest difference {off:.3g}. It "
            "does something to them that is not known here; compare the logits themselves, by a "
            "criterion such as soft_target on student.logits and teacher.logits."
        )
