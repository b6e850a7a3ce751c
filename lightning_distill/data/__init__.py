"""Where batches come from: LightningDataModules of tokenised text, of documents, of pictures."""

from .data import Cacheable, DataFacts, KeepsTeacher, Trainable
from .draw import Draw
from .language.chat_files import ChatFiles
from .language.language_model import LanguageModelData
from .language.masked_language_model import (
    MaskedCorpus,
    MaskedLanguageData,
    MaskedStandardLibrary,
)
from .language.standard_library import StandardLibrary
from .language.streamed_rows import StreamedRows, StreamLoader
from .language.text_corpus import TextCorpus
from .language.token_alignment import OffsetTokenizer, token_spans, TokenAlignment, TokenizedTexts
from .language.token_masks import TokenMasks
from .length_grouped import EvenRows, LengthGroupedBatches
from .pairs.function_docs import FunctionDocs
from .pairs.hub_pairs import HubPairs
from .pairs.keep import (
    KeepByEditDistance,
    KeepByLogProbability,
    KeepByRouge,
    KeepByWordErrorRate,
)
from .pairs.pair_files import PairFiles
from .pairs.pairs import PairDataModule
from .pairs.speech_files import SpeechFiles
from .pictures.crop_and_flip import CropAndFlip
from .pictures.hub_pictures import HubPictures
from .pictures.image_folder import ImageFolder
from .pictures.image_processor import ImageProcessor
from .pictures.picture_arrays import Digits, PictureArrays
from .pictures.picture_module import PictureDataModule
from .text.docstring_pairs import DocstringPairs
from .text.docstrings import Docstrings
from .text.embedding_files import EmbeddingFiles
from .text.hub import Hub
from .text.hub_questions import HubQuestions
from .text.hub_tokens import HubTokens
from .text.question_files import QuestionFiles
from .text.questions import Questions
from .text.sentences import Sentences
from .text.signature_questions import SignatureQuestions
from .text.standard_library_names import StandardLibraryNames
from .text.tagged_words import TaggedWords
from .text.text import TextDataModule
from .text.text_files import TextFiles
from .text.token_files import TokenFiles
from .text.token_masking import TokenMasking

__all__ = [
    "Cacheable",
    "ChatFiles",
    "CropAndFlip",
    "DataFacts",
    "Digits",
    "DocstringPairs",
    "Docstrings",
    "Draw",
    "EmbeddingFiles",
    "EvenRows",
    "FunctionDocs",
    "Hub",
    "HubPairs",
    "HubPictures",
    "HubQuestions",
    "HubTokens",
    "ImageFolder",
    "ImageProcessor",
    "KeepByEditDistance",
    "KeepByLogProbability",
    "KeepByRouge",
    "KeepByWordErrorRate",
    "KeepsTeacher",
    "LanguageModelData",
    "LengthGroupedBatches",
    "MaskedCorpus",
    "MaskedLanguageData",
    "MaskedStandardLibrary",
    "OffsetTokenizer",
    "PairDataModule",
    "PairFiles",
    "PictureArrays",
    "PictureDataModule",
    "QuestionFiles",
    "Questions",
    "Sentences",
    "SignatureQuestions",
    "SpeechFiles",
    "StandardLibrary",
    "StandardLibraryNames",
    "StreamLoader",
    "StreamedRows",
    "TaggedWords",
    "TextCorpus",
    "TextDataModule",
    "TextFiles",
    "TokenAlignment",
    "TokenFiles",
    "TokenMasking",
    "TokenMasks",
    "TokenizedTexts",
    "Trainable",
    "token_spans",
]
