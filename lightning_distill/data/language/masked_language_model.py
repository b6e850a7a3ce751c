"""Documents for masked language models: a corpus whose tokens are hidden and to be found."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ...tasks import MaskedLanguageModelling
from ..length_grouped import LengthGroupedBatches
from ..load_tokenizer import load_tokenizer
from ..rows_module import RowsModule
from ..tokenizer_fingerprint import tokenizer_fingerprint
from .byte_pairs import FOR_MASKS, train_byte_pairs
from .language_model import first_texts, LanguageModelData, MOST_TO_LEARN_FROM
from .masked_rows import MaskedRowMaker, MaskedRows, WordEncoder
from .standard_library import StandardLibrary
from .text_corpus import TextCorpus
from .token_masks import TokenMasks


class MaskedLanguageData(LanguageModelData):
    """Documents for [`MaskedLanguageModelling`][]; put it before a corpus: `Mine(this, Corpus)`.

    A batch is a dict of tensors of shape (rows, tokens): `input_ids`, some of them hidden;
    `attention_mask`; `labels`, the token that stood there, and -100 elsewhere. `row`, shape
    (rows,), is the row's number in its split, -1 for a repeat that only evens out the ranks.

    A row is a piece of one document between the tokenizer's special tokens, and rows of a batch are
    padded: encoders of transformers have no mask that would keep documents of a packed row apart. A
    document that is too long makes several rows of equal length, so that nothing of it is lost.

    Student and teacher are given the same tokens under the same masks. Masks follow from the seed,
    the row and the view, so that they are the same in every process and after resuming. What is
    evaluated has one view, which no seed changes: figures of several seeds can be compared.

    Args:
        mask_probability: share of a row's tokens that are hidden; at least one is.
        whole_word: hide whole words, as the tokenizer splits them (`word_ids`).
        views: epoch e uses view e modulo `views`, so that a cache can hold the teacher's answers to
            all; by default each epoch has masks of its own.
        options: those of the corpus. `packing` and `streaming` are none of them.

    Raises:
        ValueError: for a tokenizer without a mask token, and a teacher with another tokenizer.
    """

    task = MaskedLanguageModelling.name
    one_tokenizer: ClassVar[bool] = True
    whole_numbers: ClassVar[Mapping[str, int]] = {**LanguageModelData.whole_numbers, "views": 1}
    optional: ClassVar[frozenset[str]] = LanguageModelData.optional | {"views"}
    replaceable: ClassVar[frozenset[str]] = RowsModule.replaceable | {"views"}
    without_meaning: ClassVar[frozenset[str]] = LanguageModelData.without_meaning - {"views"}

    def __init__(
        self,
        mask_probability: float = 0.15,
        whole_word: bool = False,
        views: int | None = None,
        **options: Any,
    ):
        for name in ("packing", "streaming"):
            if options.pop(name, False):
                raise ValueError(
                    f"data.{name}=true has no meaning for masked language models: a row is a piece "
                    "of one document, and masks are drawn by the numbers of rows that are held. "
                    "Leave it out."
                )
        self.views = views
        # What changes a row from view to view, as an augmentation does.
        self.augmentation = TokenMasks(mask_probability, whole_word)
        super().__init__(packing=False, **options)

    def prepare_tokenizers(self, train: Iterable[dict[str, Any]]) -> None:
        """Load one, or train it on the documents."""
        if self.tokenizer is None:
            texts = list(first_texts(self.texts(train), MOST_TO_LEARN_FROM))
            self.tokenizer = train_byte_pairs(texts, self.vocab_size, self.max_length, FOR_MASKS)
        self.tokenizer = load_tokenizer(self.tokenizer)
        if not getattr(self.tokenizer, "is_fast", False):
            raise ValueError(
                f"data.tokenizer is a {type(self.tokenizer).__name__}, which does not say which "
                "words its tokens are of. Take a fast one (tokenizer.is_fast), as most models have."
            )
        self.augmentation.use_tokenizer(self.tokenizer)
        if self.teacher_tokenizer is not None:
            teacher = load_tokenizer(self.teacher_tokenizer)
            if tokenizer_fingerprint(teacher) != tokenizer_fingerprint(self.tokenizer):
                raise ValueError(
                    "Student and teacher must find the same hidden tokens, and their tokenizers "
                    "are not the same. Give both one: a student made of the teacher "
                    "(student=from_teacher), or one that is trained with data.tokenizer=TEACHER."
                )
            self.teacher_tokenizer = None

    def packer(self) -> Any:
        """What makes rows of documents, by the tokenizer as it is after `setup`."""
        return MaskedRowMaker(WordEncoder(self.tokenizer), self.max_length, self.augmentation)

    def training_rows(self) -> MaskedRows:
        """The training rows, whose masks change with the view."""
        rows: MaskedRows = self.splits["train"]
        return rows.seeded(self.seed)

    def training_sampler(self, lengths: np.ndarray) -> LengthGroupedBatches:
        """Which rows make a batch, and under which view they are masked."""
        return LengthGroupedBatches(
            lengths, self.batch_size, self.seed, grouped=self.length_bucketing, views=self.views
        )

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {
            **super().preprocessing(),
            "masks": repr(self.augmentation),
            "masks_seed": self.seed,
            "views": self.views,
        }

    def counts(self) -> dict[str, int]:
        """How many documents, rows and tokens there are."""
        counts: dict[str, int] = {}
        for name, rows in self.splits.items():
            counts |= {
                f"{name} documents": self._documents[name],
                f"{name} rows": len(rows),
                f"{name} tokens": int(rows.lengths.sum()),
            }
        return counts | self.bad_rows.counts()


class MaskedCorpus(MaskedLanguageData, TextCorpus):
    """[`TextCorpus`][] for masked language models; options of both."""


class MaskedStandardLibrary(MaskedLanguageData, StandardLibrary):
    """[`StandardLibrary`][] for masked language models; options of both."""
