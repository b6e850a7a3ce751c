"""A student in files that work where this package is not installed; one file per format."""

from .formats import (
    compared,
    read_again,
    Same,
    write_formats,
    Written,
)
from .fresh_process import File
from .model_card import Facts, model_card
from .proof import example_inputs, Proof

__all__ = [
    "Facts",
    "File",
    "Proof",
    "Same",
    "Written",
    "compared",
    "example_inputs",
    "model_card",
    "read_again",
    "write_formats",
]
