"""Where batches come from: LightningDataModules of tokenised text, and of documents."""

from .chat_files import ChatFiles
from .docstrings import Docstrings
from .draw import Draw
from .hub import Hub
from .language_model import LanguageModelData
from .length_grouped import EvenRows, LengthGroupedBatches
from .standard_library import StandardLibrary
from .streamed_rows import StreamedRows, StreamLoader
from .text import TextDataModule
from .text_corpus import TextCorpus
from .text_files import TextFiles
from .token_alignment import OffsetTokenizer, token_spans, TokenAlignment, TokenizedTexts
from .token_masking import TokenMasking

__all__ = [
    "ChatFiles",
    "Docstrings",
    "Draw",
    "EvenRows",
    "Hub",
    "LanguageModelData",
    "LengthGroupedBatches",
    "OffsetTokenizer",
    "StandardLibrary",
    "StreamLoader",
    "StreamedRows",
    "TextCorpus",
    "TextDataModule",
    "TextFiles",
    "TokenAlignment",
    "TokenMasking",
    "TokenizedTexts",
    "token_spans",
]
