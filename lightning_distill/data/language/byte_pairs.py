"""A byte-level BPE tokenizer trained on the spot, where none comes with a model."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tokenizers import decoders, models, pre_tokenizers, processors, Tokenizer, trainers
from transformers import PreTrainedTokenizerFast

from ..cache_folder import cache_folder

log = logging.getLogger("lightning_distill")

END, PAD = "<|endoftext|>", "<|pad|>"
FOR_ENDS = {"eos_token": END, "pad_token": PAD}
# Of an encoder, whose texts stand between two of them.
FOR_MASKS = {
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def train_byte_pairs(
    texts: Sequence[str],
    vocab_size: int,
    max_length: int,
    special: Mapping[str, str] = FOR_ENDS,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Sennrich et al., 2016) as GPT-2 has (Radford et al., 2019).

    Every text can be written in it and read back, byte for byte. The same texts give the same
    vocabulary in every process. It is kept in the folder `tokenizers` of [`cache_folder`][] under a
    hash of the texts, and is found there by the next run; the folder may be deleted.

    Args:
        texts: to learn from.
        vocab_size: at most so many tokens, among them the 256 bytes and the special ones.
        max_length: what the tokenizer says of itself, in tokens.
        special: tokens by the names that transformers has for them; with a `cls_token` and a
            `sep_token`, texts are put between them.

    Raises:
        ValueError: if the vocabulary has no room for the bytes.
    """
    least = len(pre_tokenizers.ByteLevel.alphabet()) + len(special)
    if vocab_size < least:
        raise ValueError(
            f"`vocab_size` is {vocab_size}, but there are 256 bytes and {len(special)} special "
            f"tokens: raise it to {least} at least, or name a tokenizer."
        )
    path = cache_folder() / "tokenizers" / f"{_fingerprint(texts, vocab_size, special)}.json"
    trained = None
    if path.is_file():
        try:
            trained = Tokenizer.from_file(str(path))
        except Exception as error:
            log.warning("%s cannot be read (%s): the tokenizer is trained anew", path, error)
    if trained is None:
        trained = _train(texts, vocab_size, special)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            trained.save(str(aside))
            aside.replace(path)
        # The library raises a plain Exception where it cannot write.
        except Exception as error:
            log.warning("the tokenizer cannot be kept in %s (%s)", path.parent, error)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def _train(texts: Sequence[str], vocab_size: int, special: Mapping[str, str]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special.values()),
        # Sorted, for pieces that are equally frequent are taken by number.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer, length=len(texts))
    if "cls_token" in special:
        sep, cls = special["sep_token"], special["cls_token"]
        ids: dict[str, Any] = {text: trained.token_to_id(text) for text in (sep, cls)}
        trained.post_processor = processors.RobertaProcessing(
            (sep, ids[sep]), (cls, ids[cls]), trim_offsets=False, add_prefix_space=False
        )
    return trained


def _fingerprint(texts: Sequence[str], vocab_size: int, special: Mapping[str, str]) -> str:
    digest = hashlib.sha256(f"{vocab_size} {len(texts)} {version('tokenizers')}\n".encode())
    if special != FOR_ENDS:
        digest.update(f"{sorted(special.items())}\n".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(b"%d " % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()
