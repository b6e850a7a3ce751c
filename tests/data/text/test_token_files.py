import json

import numpy as np
import pytest
import torch

from lightning_distill.data import TokenFiles
from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.data.text.word_tokens import tokens_of_words

SENTENCES = [
    (["Ann", "Lee", "flies", "to", "Rome"], ["B-per", "I-per", "O", "O", "B-loc"]),
    (["she", "saw", "Unbelievably", "long", "Paris"], ["O", "O", "O", "O", "B-loc"]),
    (["to", "Rome"], ["O", "B-loc"]),
    (["Ann", "saw", "Lee"], ["B-per", "O", "B-per"]),
]


def columns(sentences, between="\t", further=()) -> str:
    lines = ["-DOCSTART- -X- O", ""]
    for words, tags in sentences:
        rows = zip(words, tags, strict=True)
        lines += [between.join([word, *further, tag]) for word, tag in rows] + [""]
    return "\n".join(lines)


def parallel(folder, sentences):
    folder.mkdir()
    for name, part in (("seq.in", 0), ("seq.out", 1)):
        (folder / name).write_text("".join(" ".join(s[part]) + " \n" for s in sentences))


def lists(sentences) -> str:
    rows = [{"words": words, "tags": tags} for words, tags in sentences]
    return "".join(json.dumps(row) + "\n" for row in rows)


def ready(train, validation=None, **options) -> TokenFiles:
    given = {"vocab_size": 50, "batch_size": 4, "length_bucketing": False, **options}
    data = TokenFiles(str(train), str(validation or train), str(validation or train), **given)
    data.setup()
    return data


def of_batch(data) -> list[tuple[list[str], list[str]]]:
    """The words and tags of the validation rows, put together again from tokens."""
    (batch,) = data.val_dataloader()
    found = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["word_mask"],
                                 strict=True):  # fmt: skip
        words: list[str] = []
        for token, first in zip(data.tokenizer.convert_ids_to_tokens(ids), mask, strict=True):
            if first:
                words.append(token)
            elif token.startswith("##"):
                words[-1] += token[2:]
        tags = [data.label_names[n] for n in labels[mask.bool()]]
        assert bool((labels[~mask.bool()] == -100).all())
        found.append((words, tags))
    return found


def expected(sentences=SENTENCES):
    return sorted(([w.lower() for w in words], tags) for words, tags in sentences)


def test_every_kind_of_file_gives_the_same_words_and_tags(tmp_path):
    parallel(tmp_path / "folder", SENTENCES)
    (tmp_path / "a.conll").write_text(columns(SENTENCES, " ", further=["NNP", "_"]))
    (tmp_path / "b.txt").write_text(columns(SENTENCES))
    (tmp_path / "c.jsonl").write_text(lists(SENTENCES))
    for name in ("folder", "a.conll", "b.txt", "c.jsonl"):
        data = ready(tmp_path / name)
        assert sorted(of_batch(data)) == expected(), name
        assert data.label_names == ["B-loc", "B-per", "I-per", "O"] and data.num_labels == 4


def test_columns_names_and_separators_are_chosen(tmp_path):
    text = "".join(f"{i}|{w} x|{t}|z\n" for i, (w, t) in enumerate(zip(*SENTENCES[0], strict=True)))
    (tmp_path / "d.iob").write_text(text)
    data = ready(tmp_path / "d.iob", separator="|", word_column=1, tag_column=2)
    words, tags = of_batch(data)[0]
    # A word with a space in it is one, and its first token has the tag.
    assert tags == SENTENCES[0][1] and words[0] == "ann"
    rows = [{"tokens": words, "ner": tags} for words, tags in SENTENCES]
    (tmp_path / "e.json").write_text(json.dumps(rows))
    data = ready(tmp_path / "e.json", words="tokens", tags="ner", label_names=["O", "B-per",
                 "I-per", "B-loc"])  # fmt: skip
    assert sorted(of_batch(data)) == expected()
    assert data.label_names[0] == "O"


def test_long_rows_are_cut_with_their_tags(tmp_path, caplog):
    (tmp_path / "a.conll").write_text(columns(SENTENCES))
    with caplog.at_level("INFO", logger="lightning_distill"):
        data = ready(tmp_path / "a.conll", max_length=6)
    short, whole = (
        (batch["labels"] != -100).sum(1)
        for d in (data, ready(tmp_path / "a.conll"))
        for batch in d.val_dataloader()
    )
    lost = int((short < whole).sum())
    assert data.counts()["train rows cut by max_length"] == lost == 3
    (said,) = [r.getMessage() for r in caplog.records if "max_length=6" in r.getMessage()]
    assert f"cuts {lost} of {len(SENTENCES)} train rows" in said
    assert "neither their last words nor the tags of these are read" in said
    for words, tags in of_batch(data):
        # The last word may have lost its end.
        begun = [full for full in expected() if full[0][: len(words) - 1] == words[:-1]]
        assert any(tags == full[1][: len(tags)] for full in begun)
    (batch,) = data.val_dataloader()
    assert batch["input_ids"].shape[1] == 6


def test_unlabelled_rows_have_words_and_no_tags(tmp_path):
    tagless = "".join(f"{word}\n" for word in SENTENCES[0][0]) + "\n"
    (tmp_path / "train.conll").write_text(tagless + columns(SENTENCES[1:]))
    (tmp_path / "dev.conll").write_text(columns(SENTENCES))
    data = ready(tmp_path / "train.conll", tmp_path / "dev.conll", label_names=["B-loc", "B-per",
                 "I-per", "O"])  # fmt: skip
    (batch,) = data.train_dataloader()
    row = int((batch["row"] == 0).nonzero())
    assert bool((batch["labels"][row] == -100).all())
    assert int(batch["word_mask"][row].sum()) == 5
    assert data.counts()["labelled train rows"] == 3
    kept = data.replace(labelled_rows=1).train_dataloader()
    assert sum(bool((row != -100).any()) for b in kept for row in b["labels"]) == 1
    left = data.replace(drop_unlabelled=True).train_dataloader()
    assert sum(len(b["labels"]) for b in left) == 3


def test_a_word_of_which_nothing_is_left_is_read_as_unknown():
    tokenizer = train_word_pieces(["a b c"], 50, 32)
    found = tokens_of_words([["a", "\u200b", "b"], ["c"]], tokenizer, 32)
    assert [row.tolist() for row in found["begun"]] == [[0, 1, 2, 3, 0], [0, 1, 0]]
    unknown = tokenizer.unk_token_id
    assert found["input_ids"][0].tolist()[2] == unknown


def test_words_begin_where_a_tokenizer_of_words_says():
    """The oracle is the tokenizer's own account of words that it is given one by one."""
    texts = [" ".join(words) for words, _ in SENTENCES]
    tokenizer = train_word_pieces(texts, 50, 32)
    rows = [words for words, _ in SENTENCES]
    found = tokens_of_words(rows, tokenizer, 32)
    given = tokenizer(rows, is_split_into_words=True)
    for i, row in enumerate(rows):
        ids = given.word_ids(i)
        first = [
            n is not None and n != before for n, before in zip(ids, [None, *ids], strict=False)
        ]
        assert (found["begun"][i] > 0).tolist() == first
        assert found["begun"][i].max() == len(row)
        assert np.array_equal(found["input_ids"][i], given["input_ids"][i])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann B-per\nLee\n", r"line 3 of .*bad.conll has 2 words and 1 tags"),
        ("Ann\tB-per\n\tO\n", r"Line 2 of .*bad.conll has a tag without a word"),
        (
            "Ann B-per\nLee B-dog\n",
            r"Tag 'B-dog' of word 1 in row 0 of the validation",
        ),
    ],
)
def test_lines_that_are_no_word_with_a_tag_are_refused(text, words, tmp_path):
    (tmp_path / "good.conll").write_text(columns(SENTENCES))
    (tmp_path / "bad.conll").write_text(text)
    separator = "\t" if "\t" in text else None
    if separator:
        (tmp_path / "good.conll").write_text(columns(SENTENCES, separator))
    with pytest.raises(ValueError, match=words):
        ready(tmp_path / "good.conll", tmp_path / "bad.conll", separator=separator)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ((["a", "b"], ["O"]), r"Word 1 \('b'\) in .* has no tag: there are 2 words and 1 tags"),
        ((["a"], ["O", "O"]), r"Tag 1 \('O'\) in .* has no word: there are 1 words and 2 tags"),
    ],
)
def test_as_many_words_as_tags(sentence, words, tmp_path):
    parallel(tmp_path / "folder", [sentence])
    (tmp_path / "a.jsonl").write_text(lists([sentence]))
    for name in ("folder", "a.jsonl"):
        with pytest.raises(ValueError, match=words):
            ready(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "words.txt").write_text("a b\n")
    with pytest.raises(FileNotFoundError, match=r"has no file seq.in.*it has words.txt.*parallel"):
        ready(tmp_path / "folder")
    (tmp_path / "a.jsonl").write_text(json.dumps({"tokens": ["a"], "tags": ["O"]}))
    with pytest.raises(ValueError, match=r"no entry 'words'; it has .*data.words=tokens"):
        ready(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text(json.dumps({"words": "a b", "tags": ["O"]}))
    with pytest.raises(ValueError, match="must hold a list of words, got 'a b'"):
        ready(tmp_path / "b.jsonl")
    (tmp_path / "c.conll").write_text(columns(SENTENCES))
    with pytest.raises(ValueError, match="must be token_classification, or one .*data=text_files"):
        ready(tmp_path / "c.conll", task="classification")


def test_tags_are_part_of_the_fingerprint(tmp_path):
    (tmp_path / "a.conll").write_text(columns(SENTENCES))
    other = [*SENTENCES[:3], (SENTENCES[3][0], ["B-per", "O", "O"])]
    (tmp_path / "b.conll").write_text(columns(other))
    first, second = ready(tmp_path / "a.conll"), ready(tmp_path / "b.conll")
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() == ready(tmp_path / "a.conll").fingerprint()
    rows = first.splits["train"]
    assert torch.equal(rows.has_label, torch.ones(4, dtype=torch.bool))
