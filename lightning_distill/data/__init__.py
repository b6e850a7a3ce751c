"""Where batches come from: LightningDataModules of tokenised text."""

from .docstrings import Docstrings
from .hub import Hub
from .length_grouped import EvenRows, LengthGroupedBatches
from .text import TextDataModule
from .text_files import TextFiles

__all__ = [
    "Docstrings",
    "EvenRows",
    "Hub",
    "LengthGroupedBatches",
    "TextDataModule",
    "TextFiles",
]
