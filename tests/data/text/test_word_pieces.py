import pytest
from processes import with_other_hashes

from lightning_distill.data.text.word_pieces import train_word_pieces

TEXTS = [f"The quick brown fox number {i} jumps över the lazy dog" for i in range(30)]


def test_it_writes_text_like_bert():
    tokenizer = train_word_pieces(TEXTS, 200, 16)
    ids = tokenizer("The FOX", "jumps")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "[CLS]",
        "the",
        "fox",
        "[SEP]",
        "jumps",
        "[SEP]",
    ]
    assert tokenizer("The fox", "jumps")["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    assert tokenizer.convert_ids_to_tokens(tokenizer("fox ☃")["input_ids"])[2] == "[UNK]"
    assert [tokenizer.pad_token_id, tokenizer.pad_token] == [0, "[PAD]"]
    assert len(tokenizer("dog " * 40, truncation=True)["input_ids"]) == 16


def test_the_vocabulary_is_at_most_as_large_as_asked():
    assert len(train_word_pieces(TEXTS, 90, 16)) <= 90
    with pytest.raises(ValueError, match=r"`vocab_size` is 50, .* different characters, which"):
        train_word_pieces([chr(c) for c in range(0x4E00, 0x4E40)], 50, 16)


@pytest.mark.slow
def test_another_process_learns_the_same_vocabulary():
    # Two ranks must give every token the same number; hash seeds differ between processes.
    assert with_other_hashes(_vocabulary) == _vocabulary()


def _vocabulary():
    texts = [f"word{i % 7} and wörd{i % 5}{i}" for i in range(200)]
    return train_word_pieces(texts, 150, 16).get_vocab()


def test_it_is_the_same_after_saving(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = train_word_pieces(TEXTS, 200, 16)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "A brown DOG jumps"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.model_max_length == 16
