"""A WordPiece tokenizer trained on the spot, where none comes with a model."""

from collections.abc import Iterable

from tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    Tokenizer,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_word_pieces(
    texts: Iterable[str], vocab_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer (Schuster and Nakajima, 2012) as BERT has.

    The same texts give the same vocabulary in every process.

    Args:
        texts: to learn from.
        vocab_size: at most so many pieces, the five special ones included.
        max_length: what the tokenizer says of itself, in tokens.

    Raises:
        ValueError: if the texts have more characters than the vocabulary has room for.
    """
    texts = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=True)
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Pieces are numbered as they are met, in an order that changes from process to process, and
    # ties are broken by number. Naming the characters first fixes both.
    characters = sorted({c for text in texts for c in normalizer.normalize_str(text)} - {" "})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL.values(), *(f"##{c}" for c in characters)],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    vocabulary = trained.get_vocab()
    if len(vocabulary) > vocab_size:
        raise ValueError(
            f"`vocab_size` is {vocab_size}, but the texts have {len(characters)} different "
            f"characters, which need {len(vocabulary)} pieces. Raise it, or name a tokenizer."
        )
    # Built anew, because the characters are no special tokens.
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
    )
