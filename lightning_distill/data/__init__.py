"""Where batches come from: LightningDataModules of tokenised text."""

from .docstrings import Docstrings
from .draw import Draw
from .hub import Hub
from .length_grouped import EvenRows, LengthGroupedBatches
from .text import TextDataModule
from .text_files import TextFiles
from .token_alignment import OffsetTokenizer, token_spans, TokenAlignment, TokenizedTexts
from .token_masking import TokenMasking

__all__ = [
    "Docstrings",
    "Draw",
    "EvenRows",
    "Hub",
    "LengthGroupedBatches",
    "OffsetTokenizer",
    "TextDataModule",
    "TextFiles",
    "TokenAlignment",
    "TokenMasking",
    "TokenizedTexts",
    "token_spans",
]
