"""A teacher in fewer bits: smaller, and its answers change a little."""

from importlib.util import find_spec

from torch import nn

KINDS = ("int8",)


def quantized(model: nn.Module, kind: str | None) -> nn.Module:
    """Quantise the weights of all linear layers in place, by torchao.

    `int8` keeps weights as 8-bit integers with one scale per output, and rounds what comes into a
    layer to 8 bits with one scale per token, so that padding and the other rows of a batch change
    nothing. Embeddings, norms and biases stay as they are.

    Args:
        model: in eval mode; it cannot be trained afterwards.
        kind: `int8`, or `None`, which leaves the model alone.

    Raises:
        ValueError: for another kind, or if torchao is not installed.
    """
    check_quantization(kind)
    if kind is None:
        return model
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model.requires_grad_(False)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
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
