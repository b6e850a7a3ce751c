"""Where batches come from: LightningDataModules of tokenised text, of documents, of pictures."""

from .data import Cacheable, DataFacts, KeepsTeacher, Trainable
from .draw import Draw
from .language.chat_files import ChatFiles
from .language.language_model import LanguageModelData
from .language.standard_library import StandardLibrary
from .language.streamed_rows import StreamedRows, StreamLoader
from .language.text_corpus import TextCorpus
from .language.token_alignment import OffsetTokenizer, token_spans, TokenAlignment, TokenizedTexts
from .length_grouped import EvenRows, LengthGroupedBatches
from .pictures.crop_and_flip import CropAndFlip
from .pictures.hub_pictures import HubPictures
from .pictures.image_folder import ImageFolder
from .pictures.image_processor import ImageProcessor
from .pictures.picture_arrays import Digits, PictureArrays
from .pictures.picture_module import PictureDataModule
from .text.docstrings import Docstrings
from .text.hub import Hub
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
    "Docstrings",
    "Draw",
    "EvenRows",
    "Hub",
    "HubPictures",
    "ImageFolder",
    "ImageProcessor",
    "KeepsTeacher",
    "LanguageModelData",
    "LengthGroupedBatches",
    "OffsetTokenizer",
    "PictureArrays",
    "PictureDataModule",
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
