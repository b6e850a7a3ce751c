"""A student in files that work where this package is not installed; one file per format."""

from .formats import (
    compared,
    FORMATS,
    read_again,
    Same,
    write_formats,
    Written,
)
from .fresh_process import File
from .integers import in_float, Integers
from .model_card import Facts, model_card
from .proof import example_inputs, Proof

__all__ = [
    "FORMATS",
    "Facts",
    "File",
    "Integers",
    "Proof",
    "Same",
    "Written",
    "compared",
    "example_inputs",
    "in_float",
    "model_card",
    "read_again",
    "write_formats",
]
