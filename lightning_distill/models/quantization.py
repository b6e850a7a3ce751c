"""A teacher in fewer bits: smaller, and its answers change a little."""

from importlib.util import find_spec

from torch import nn

from .embeddings import output_embeddings

KINDS = ("int8",)


def quantized(model: nn.Module, kind: str | None) -> nn.Module:
    """Quantise the weights of all linear layers but a language model's head, by torchao.

    `int8` keeps weights as 8-bit integers with one scale per output, and rounds what comes into a
    layer to 8 bits with one scale per token, so that padding and the other rows of a batch change
    nothing. Embeddings, norms and biases stay as they are, and so does what makes logits of tokens,
    which is often the embedding too and is needed whole where logits are not made.

    Args:
        model: in eval mode; changed in place, it cannot be trained afterwards.
        kind: `int8`, or `None`, which leaves the model alone.

    Raises:
        ValueError: for another kind, or if torchao is not installed.
    """
    check_quantization(kind)
    if kind is None:
        return model
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model.requires_grad_(False)
    head = output_embeddings(model)
    quantize_(
        model,
        Int8DynamicActivationInt8WeightConfig(),
        filter_fn=lambda part, path: isinstance(part, nn.Linear) and part is not head,
    )
    # For who wants to make the same teacher again.
    model.quantization = kind  # type: ignore[assignment]
    return model


def check_quantization(kind: str | None) -> None:
    """Refuse at once what `quantized` would refuse when a teacher is trained already."""
    if kind is None:
        return
    if kind not in KINDS:
        raise ValueError(f"`quantization` must be {' or '.join(KINDS)} or null, got {kind!r}.")
    if find_spec("torchao") is None:
        raise ValueError(
            "`quantization` is int8, which needs torchao, and that is not installed: "
            "pip install 'lightning-distill[quantization]', or leave teacher.quantization=null."
        )
