"""What holds the bytes of a weight: the one place that looks into quantised ones."""

from torch import nn, Tensor


def is_quantized(tensor: Tensor) -> bool:
    """Whether a weight is made of others, such as the integers and scales of torchao."""
    # The protocol by which torch.compile looks into subclasses of tensors; torchao follows it.
    plain = type(tensor) in (Tensor, nn.Parameter)
    return not plain and hasattr(tensor, "__tensor_flatten__")


def plain_tensors(tensor: Tensor) -> list[Tensor]:
    """Those that hold the bytes: the tensor itself, or of a quantised one integers and scales."""
    if not is_quantized(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = [getattr(tensor, name) for name in names]
    return [plain for part in parts if part is not None for plain in plain_tensors(part)]
