"""A smaller vocabulary splits texts of its tokens as the whole one does."""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from processes import with_other_hashes
from tokenizers import models, normalizers, pre_tokenizers, processors, Tokenizer, trainers
from tokenizers_of_text import byte_level, texts, unigram, word_pieces
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_distill.students import cut_vocabulary
from lightning_distill.students.vocabulary_cut import check_vocabulary
from lightning_distill.students.vocabulary_kinds import BytePairs

DATA = os.environ.get("LIGHTNING_DISTILL_DATA")
OTHER = [
    "Überraschung für den größten Künstler: naïve 東京 🙂",
    "xq zzgh éa",
    "  spaces\t\tand tabs ",
]


@cache
def of_bytes_and_letters():
    """A byte-pair encoding whose unknown letters become bytes, as Llama 2 and Gemma have."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    lines = [line for text in texts() for line in text.split("\n")]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, show_progress=False, limit_alphabet=50
    )
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@cache
def of_ends_of_words():
    """A byte-pair encoding that marks the last letter of a word, as CLIP has."""
    backend = Tokenizer(models.BPE(unk_token="<end>", end_of_word_suffix="</w>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<end>"], end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", unk_token="<end>")


KINDS = {
    "word pieces": lambda: word_pieces(1200),
    "byte pairs": lambda: byte_level(1200),
    "byte pairs with bytes for letters": of_bytes_and_letters,
    "byte pairs with ends of words": of_ends_of_words,
    "unigram": lambda: unigram(900),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def lines() -> tuple[list[str], list[str]]:
    """What is counted, and other texts."""
    found = [line for text in texts() for line in text.split("\n") if line.strip()]
    return found[:60], [*found[60::7], *OTHER]


def counted(tokenizer, train) -> np.ndarray:
    ids = [i for text in train for i in tokenizer(text)["input_ids"]]
    return np.bincount(ids, minlength=len(tokenizer))


def check_same_tokens(cut, texts_) -> int:
    """Compares every text whose tokens are all there; gives how many there are."""
    whole, smaller, kept = cut.whole, cut.tokenizer, {*cut.ids.tolist()}
    same = 0
    for text in texts_:
        expected = whole(text, return_offsets_mapping=True)
        if not {*expected["input_ids"]} <= kept:
            continue
        found = smaller(text, return_offsets_mapping=True)
        same += 1
        tokens = [t.convert_ids_to_tokens(f["input_ids"]) for t, f in (
            (whole, expected), (smaller, found))]  # fmt: skip
        assert tokens[1] == tokens[0], text
        assert found["offset_mapping"] == expected["offset_mapping"], text
        assert cut.ids[found["input_ids"]].tolist() == expected["input_ids"], text
    return same


@each_kind
@pytest.mark.parametrize("asked", [640, "seen"])
def test_texts_of_tokens_that_stay_are_split_as_before(kind, asked):
    tokenizer, (train, other) = KINDS[kind](), lines()
    cut = cut_vocabulary(tokenizer, counted(tokenizer, train), asked)
    assert len(cut.tokenizer) == len(cut.ids) < len(tokenizer)
    if asked == "seen":
        assert check_same_tokens(cut, train) == len(train)
    else:
        assert len(cut.ids) <= asked
    # Of the others, some have none but tokens that stay.
    assert 0 < check_same_tokens(cut, [*train, *other, *OTHER]) < len(train) + len(other)


@each_kind
def test_no_text_becomes_unknown(kind):
    tokenizer, (train, other) = KINDS[kind](), lines()
    cut = cut_vocabulary(tokenizer, counted(tokenizer, train[:5]), "seen")
    if tokenizer.unk_token_id is None:
        assert all(cut.tokenizer.decode(cut.tokenizer(t)["input_ids"]) for t in other)
        return
    for text in other:
        unknown = [
            t.unk_token_id in t(text, add_special_tokens=False)["input_ids"]
            for t in (tokenizer, cut.tokenizer)
        ]
        assert unknown[0] == unknown[1], text


@each_kind
def test_special_tokens_keep_their_part_and_are_read_from_a_folder(kind, tmp_path):
    tokenizer, (train, _) = KINDS[kind](), lines()
    cut = cut_vocabulary(tokenizer, counted(tokenizer, train[:5]), "seen")
    cut.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == cut.tokenizer.get_vocab()
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again("a text", "and another") == cut.tokenizer("a text", "and another")
    around = [t.convert_ids_to_tokens(t.build_inputs_with_special_tokens([]) if hasattr(
        t, "build_inputs_with_special_tokens") else t("")["input_ids"])
        for t in (tokenizer, again)]  # fmt: skip
    assert around[0] == around[1]


def test_the_most_frequent_tokens_stay():
    tokenizer, (train, _) = word_pieces(1200), lines()
    counts = counted(tokenizer, train)
    always = {*cut_vocabulary(tokenizer, np.eye(1, len(tokenizer), dtype=int)[0], "seen").ids}
    # Counted by hand: [PAD] is among what always stays.
    frequent = Counter({i: int(n) for i, n in enumerate(counts) if i not in always})
    asked = len(always) + 40
    expected = always | {i for i, _ in frequent.most_common(40)}
    assert {*cut_vocabulary(tokenizer, counts, asked).ids} == expected
    assert {*cut_vocabulary(tokenizer, counts, "seen").ids} == always | {*np.flatnonzero(counts)}


def test_what_is_joined_on_the_way_stays_although_no_text_uses_it():
    model = {
        "vocab": {t: i for i, t in enumerate(["a", "b", "c", "d", "ab", "bc", "abc", "abcd"])},
        "merges": [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"], ["abc", "d"]],
    }
    kind = BytePairs(model)
    assert {*kind.parts("abcd")} == {"a", "b", "c", "d", "ab", "abc", "abcd"}
    cut = kind.cut({"a", "b", "c", "d", "ab", "abc", "abcd"})
    assert cut["merges"] == [["a", "b"], ["ab", "c"], ["abc", "d"]]


@pytest.mark.parametrize("name", ["bert", "template", "sequence"])
def test_special_tokens_behind_all_others_get_their_new_numbers(name):
    words = [
        "a",
        "b",
        "c",
        "##a",
        "##b",
        "##c",
        "ab",
        "abc",
        "##bc",
        "[PAD]",
        "[UNK]",
        "[C]",
        "[S]",
    ]
    backend = Tokenizer(models.WordPiece({t: i for i, t in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    bert = processors.BertProcessing(("[S]", 12), ("[C]", 11))
    template = processors.TemplateProcessing(
        single="[C] $A [S]", pair="[C] $A [S] $B [S]", special_tokens=[("[C]", 11), ("[S]", 12)]
    )
    backend.post_processor = {
        "bert": bert, "template": template, "sequence": processors.Sequence([bert]),
    }[name]  # fmt: skip
    backend.enable_padding(pad_id=9, pad_token="[PAD]")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[C]", "sep_token": "[S]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    counts = np.zeros(13, dtype=int)
    counts[6] = 4
    smaller = cut_vocabulary(tokenizer, counts, "seen").tokenizer
    assert len(smaller) == 11 and "abc" not in smaller.get_vocab()
    padding = json.loads(smaller.backend_tokenizer.to_str())["padding"]
    assert padding is None or padding["pad_id"] == smaller.pad_token_id
    found = smaller(["ab abc", "b"], ["c", "a"], padding=True)
    expected = [["[C]", "ab", "ab", "##c", "[S]", "c", "[S]"],
                ["[C]", "b", "[S]", "a", "[S]", "[PAD]", "[PAD]"]]  # fmt: skip
    assert [smaller.convert_ids_to_tokens(row) for row in found["input_ids"]] == expected
    assert found["attention_mask"][1] == [1, 1, 1, 1, 1, 0, 0]


def test_what_is_unknown_is_as_unlikely_as_it_was():
    """Unigram takes 10 off the least likely token for what it does not know."""
    likely = {"<unk>": 0.0, "a": -1.0, "z": -20.0, "az": -1.0, "Xa": -20.0, "q": -1.0, "qq": -50.0}
    backend = Tokenizer(models.Unigram([*likely.items()], unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    cut = cut_vocabulary(tokenizer, np.array([0, 0, 1, 1, 1, 0, 0]), "seen")
    assert tokenizer.tokenize("Xaz") == cut.tokenizer.tokenize("Xaz") == ["Xa", "z"]


@pytest.mark.slow
def test_the_same_tokens_in_every_process():
    here = described(0)
    assert with_other_hashes(described, 0) == here


def described(_) -> str:
    backend = Tokenizer.from_str(json.dumps(FIXED))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>", unk_token="<u>")
    cut = cut_vocabulary(tokenizer, np.array([0, 3, 0, 3, 3, 3, 2, 3, 3, 1, 5, 4]), 10)
    return cut.tokenizer.backend_tokenizer.to_str() + str(cut.ids.tolist())


FIXED = {
    "version": "1.0",
    "added_tokens": [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, t in enumerate(("<e>", "<u>"))
    ],
    "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
    "truncation": None, "padding": None,
    "model": {
        "type": "BPE", "unk_token": "<u>", "fuse_unk": False, "byte_fallback": False,
        "vocab": {t: i for i, t in enumerate(
            ["<e>", "<u>", "a", "b", "c", "d", "ab", "bc", "cd", "abc", "bcd", "abcd"])},
        "merges": [["a", "b"], ["b", "c"], ["c", "d"], ["ab", "c"], ["bc", "d"], ["abc", "d"]],
    },
}  # fmt: skip


# Errors.


@pytest.mark.parametrize("asked", [0, -3, 2.5, True, "all", "8k"])
def test_what_is_no_size_is_refused(asked):
    with pytest.raises(ValueError, match="as in student.vocabulary=8000, or `seen`"):
        check_vocabulary(asked)


def test_a_number_below_what_must_stay_is_refused_with_the_number():
    tokenizer = byte_level(400)
    words = (
        r"student.vocabulary=100 is less than what must stay of the teacher's 400 tokens: 257 "
        r"special tokens and single characters. Set student.vocabulary=257 or more"
    )
    with pytest.raises(ValueError, match=words):
        cut_vocabulary(tokenizer, np.ones(400, dtype=int), 100)
    assert len(cut_vocabulary(tokenizer, np.ones(400, dtype=int), 257).ids) == 257


class Slow:
    """One of transformers' that is written in Python has no backend."""


def test_other_tokenizers_are_refused_by_name():
    with pytest.raises(ValueError, match="a file tokenizer.json, and Slow is written in Python"):
        cut_vocabulary(Slow(), np.ones(4, dtype=int), "seen")
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words = "WordPiece, BPE, Unigram, and TokenizersBackend is of the kind WordLevel"
    with pytest.raises(ValueError, match=words):
        cut_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend), np.ones(2, int), "seen")


# Real texts of several languages.


@cache
def real() -> tuple[list[str], list[str]]:
    folder = Path(str(DATA))
    asked = {}
    for language in ("en", "de", "es"):
        found = json.loads((folder / "xquad" / f"xquad.{language}.json").read_text())
        asked[language] = [p["context"] for a in found["data"] for p in a["paragraphs"]]
    sentences = (folder / "sst2" / "dev.tsv").read_text().splitlines()[1:]
    lines_ = [x for x in (folder / "wikitext2" / "valid.txt").read_text().split("\n") if x.strip()]
    return asked["de"][:60], [*asked["es"][:40], *asked["en"][:40], *sentences[:300], *lines_[:200]]


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="LIGHTNING_DISTILL_DATA names no folder with xquad/")
@each_kind
@pytest.mark.parametrize("asked", [700, "seen"])
def test_real_texts_of_three_languages(kind, asked):
    tokenizer, (train, other) = KINDS[kind](), real()
    cut = cut_vocabulary(tokenizer, counted(tokenizer, train), asked)
    pieces = [p for text in [*train, *other] for p in text.split(". ")]
    assert check_same_tokens(cut, pieces) > 50
