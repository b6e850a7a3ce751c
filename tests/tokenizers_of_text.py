"""Tokenizers of three kinds, trained on the documents of this repository."""

from functools import cache
from pathlib import Path

from tokenizers import models, normalizers, pre_tokenizers, processors, Tokenizer, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent


@cache
def texts() -> list[str]:
    """Paragraphs, of several lines each, with code and tables among them."""
    pages = ("README.md", "docs/options.md", "docs/language_models.md", "docs/cache.md",
             "docs/python.md", "docs/criteria.md", "CHANGELOG.md")  # fmt: skip
    text = "\n\n".join((ROOT / page).read_text() for page in pages)
    return [p for p in text.split("\n\n") if p.strip()]


@cache
def trained(kind: str, size: int) -> str:
    """Once, as two trainings do not give the same tokens; a description, as tests change them."""
    backend: Tokenizer
    if kind == "bytes":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size,
            special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        )
    else:
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=special, show_progress=False
        )
    backend.train_from_iterator(texts(), trainer)
    return backend.to_str()


def byte_level(size: int = 400, trim_offsets: bool = False):
    """A byte-level BPE, as GPT-2, Llama 3 and Qwen have."""
    backend = Tokenizer.from_str(trained("bytes", size))
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def unigram(size: int = 300, bos: bool = True):
    """A unigram model that writes spaces as a letter, as T5, Llama 2 and Gemma have."""
    backend = Tokenizer.from_str(trained("unigram", size))
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def word_pieces(size: int = 350):
    """A lower-casing WordPiece that drops spaces, as BERT has."""
    backend = Tokenizer.from_str(trained("words", size))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
