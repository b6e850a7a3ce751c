"""What may be asked of any model: where its tensors are, what it is given, and what it is."""

from .capture import capture, check_layers, forward_options, read
from .fingerprint import fingerprint
from .head import Head, head_of, linear_head
from .signature import accepts
from .source import Source
from .submodules import submodules

__all__ = [
    "Head",
    "Source",
    "accepts",
    "capture",
    "check_layers",
    "fingerprint",
    "forward_options",
    "head_of",
    "linear_head",
    "read",
    "submodules",
]
