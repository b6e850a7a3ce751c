"""One hash in all processes, and another one for whatever gives other tokens."""

import pytest
from processes import with_other_hashes
from transformers import AutoTokenizer

from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.data.tokenizer_fingerprint import tokenizer_fingerprint

TEXTS = [f"the fox number {i} jumps over dogs" for i in range(20)]


def made(vocab_size=80, texts=TEXTS):
    return train_word_pieces(texts, vocab_size, 16)


@pytest.mark.slow
def test_use_and_place_do_not_matter(tmp_path):
    tokenizer = made()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=5, padding=True)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert with_other_hashes(_of_folder, str(tmp_path)) == before


def _of_folder(folder):
    return tokenizer_fingerprint(AutoTokenizer.from_pretrained(folder))


def lower_off(tokenizer):
    tokenizer.backend_tokenizer.normalizer = None


def other_side(tokenizer):
    tokenizer.truncation_side = "left"


def one_more(tokenizer):
    tokenizer.add_tokens(["zebra"])


@pytest.mark.parametrize("change", [lower_off, other_side, one_more])
def test_every_change_is_seen(change):
    tokenizer = made()
    before = tokenizer_fingerprint(tokenizer)
    change(tokenizer)
    assert tokenizer_fingerprint(tokenizer) != before
