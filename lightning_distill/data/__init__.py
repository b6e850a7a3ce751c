"""Where batches come from: LightningDataModules of tokenised text, and of documents."""

from .data import Cacheable, DataFacts, KeepsTeacher, Trainable
from .draw import Draw
from .language.chat_files import ChatFiles
from .language.language_model import LanguageModelData
from .language.standard_library import StandardLibrary
from .language.streamed_rows import StreamedRows, StreamLoader
from .language.text_corpus import TextCorpus
from .language.token_alignment import OffsetTokenizer, token_spans, TokenAlignment, TokenizedTexts
from .length_grouped import EvenRows, LengthGroupedBatches
from .pairs.function_docs import FunctionDocs
from .pairs.keep import (
    KeepByEditDistance,
    KeepByLogProbability,
    KeepByRouge,
    KeepByWordErrorRate,
)
from .pairs.pair_files import PairFiles
from .pairs.pairs import PairDataModule
from .text.docstrings import Docstrings
from .text.hub import Hub
from .text.text import TextDataModule
from .text.text_files import TextFiles
from .text.token_files import TokenFiles
from .text.token_masking import TokenMasking

__all__ = [
    "Cacheable",
    "ChatFiles",
    "DataFacts",
    "Docstrings",
    "Draw",
    "EvenRows",
    "FunctionDocs",
    "Hub",
    "KeepByEditDistance",
    "KeepByLogProbability",
    "KeepByRouge",
    "KeepByWordErrorRate",
    "KeepsTeacher",
    "LanguageModelData",
    "LengthGroupedBatches",
    "OffsetTokenizer",
    "PairDataModule",
    "PairFiles",
    "StandardLibrary",
    "StreamLoader",
    "StreamedRows",
    "TextCorpus",
    "TextDataModule",
    "TextFiles",
    "TokenAlignment",
    "TokenFiles",
    "TokenMasking",
    "TokenizedTexts",
    "Trainable",
    "token_spans",
]
