"""Spans are what a reader would mark who goes through both tokenisations character by character."""

import dataclasses
import pickle
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers_of_text import byte_level, texts, unigram, word_pieces

from lightning_distill.data import OffsetTokenizer, token_spans, TokenAlignment, TokenizedTexts

MAKERS = {"bytes": byte_level, "unigram": unigram, "words": word_pieces}
HARD = [
    "Hello the  teacher é\n\n  student.\n",
    " leading and trailing ",
    "naïve — “quoted” 数据 🙂🙂 ok",
    "def f(x):\n    return x  # τ²\n\n\n",
    "\t\ttabs\tand \u00a0 spaces",
    "",
    "   ",
    "a",
]


@cache
def tokenizer(name):
    return OffsetTokenizer(MAKERS[name]())


def slowly(text, student, teacher):
    """One text's spans, by looking at every character; sides are (offsets, special, labels)."""
    sides = []
    for offsets, special, labels in (student, teacher):
        tokens = []
        for j, (a, b) in enumerate(offsets.tolist()):
            if not (special[j] and a == b):
                tokens.append((a, b, j > 0 and labels[j - 1] != -100 and not special[j], j))
        sides.append(tokens)
    cuts = [
        c
        for c in range(len(text) + 1)
        if not any(a < c < b for tokens in sides for a, b, _, _ in tokens)
    ]
    ends = {p for tokens in sides for a, b, _, _ in tokens for p in (a, b)}
    cuts = [c for c in cuts if c in ends]
    found = [np.full(len(side[0]), -1) for side in (student, teacher)]
    number = 0
    for i, cut in enumerate(cuts):
        following = cuts[i + 1] if i + 1 < len(cuts) else len(text) + 1
        groups = [[t for t in tokens if cut <= t[0] < following] for tokens in sides]
        if not all(groups) or not all(predicted for g in groups for _, _, predicted, _ in g):
            continue
        extents = [(min(t[0] for t in g), max(t[1] for t in g)) for g in groups]
        (a, b), (c, d) = extents
        # What one has more than the other is whitespace only.
        if text[min(a, c) : max(a, c)].strip() or text[min(b, d) : max(b, d)].strip():
            continue
        for g, spans in zip(groups, found, strict=True):
            for *_, j in g:
                spans[j - 1] = number
        number += 1
    return found


def sides_of(tokenized, i):
    return tokenized.offsets[i], tokenized.special[i], tokenized.labels[i]


def agree(rows, student, teacher):
    spans = token_spans(rows, student, teacher)
    for i, text in enumerate(rows):
        expected = slowly(text, sides_of(student, i), sides_of(teacher, i))
        for side in (0, 1):
            assert spans[side][i].tolist() == expected[side].tolist(), (text, side)
    return spans


@pytest.mark.parametrize(("student", "teacher"), list(permutations(MAKERS, 2)))
@pytest.mark.parametrize("max_length", [None, 9])
def test_spans_of_real_tokenizers_are_those_of_a_slow_reader(student, teacher, max_length):
    rows = [*HARD, *(t[:200] for t in texts()[::6])]
    student, teacher = (tokenizer(n)(rows, max_length) for n in (student, teacher))
    spans = agree(rows, student, teacher)
    if max_length is None:
        # Most text is compared, and in small pieces.
        for side, found in zip((student, teacher), spans, strict=True):
            tokens = sum(len(row) for row in side.ids)
            assert sum((row >= 0).sum() for row in found) > 0.75 * tokens
        assert sum(row.max(initial=-1) + 1 for row in spans[0]) > 0.3 * tokens


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.text("ab c\nTé🙂ß.", max_size=25), min_size=1, max_size=4),
    student=st.sampled_from(sorted(MAKERS)),
    teacher=st.sampled_from(sorted(MAKERS)),
    lengths=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 2**31),
)
def test_spans_of_any_text_cut_and_masked_anywhere(rows, student, teacher, lengths, seed):
    generator = np.random.default_rng(seed)
    sides = []
    for name, longest in zip((student, teacher), lengths, strict=True):
        side = tokenizer(name)(rows, longest)
        labels = [np.where(generator.random(len(r)) < 0.1, -100, r) for r in side.labels]
        sides.append(dataclasses.replace(side, labels=labels))
    agree(rows, *sides)


def test_labels_are_the_following_tokens():
    side = tokenizer("words")(["the teacher", ""])
    assert side.ids[0][0] == 2 and side.ids[0][-1] == 3
    assert side.labels[0].tolist() == [*side.ids[0][1:], -100]
    assert side.labels[1].tolist() == [3, -100]
    cut = tokenizer("words")(["the teacher"], 3)
    assert cut.ids[0].tolist() == side.ids[0][:3].tolist() and cut.labels[0][-1] == -100


def by_hand(text, *pieces, first_is_predicted=True):
    """Tokens as the pieces of a text, with one that stands for no text before them."""
    offsets, place = [[0, 0]], 0
    for piece in pieces:
        place = text.index(piece, place)
        offsets.append([place, place + len(piece)])
        place += len(piece)
    if not first_is_predicted:
        offsets = offsets[1:]
    n = len(offsets)
    special = np.zeros(n, dtype=bool)
    special[0] = first_is_predicted
    labels = np.arange(1, n + 1)
    labels[-1] = -100
    return TokenizedTexts([np.arange(n)], [np.array(offsets)], [special], [labels])


def test_groups_are_the_smallest_that_cover_the_same_text():
    text = "unbelievable story"
    student = by_hand(text, "un", "believ", "able", " story")
    teacher = by_hand(text, "unbel", "iev", "able", " st", "ory")
    first, second = token_spans([text], student, teacher)
    # One place before their tokens: the first predicts "un", the last predicts nothing.
    assert first[0].tolist() == [0, 0, 1, 2, -1]
    assert second[0].tolist() == [0, 0, 1, 2, 2, -1]


def test_spaces_may_be_a_part_of_the_word_or_a_token_or_nothing():
    text = "a cat sat"
    joined = by_hand(text, "a", " cat", " sat")
    apart = by_hand(text, "a", " ", "cat", " ", "sat")
    behind = by_hand(text, "a ", "cat ", "sat")
    dropped = by_hand(text, "a", "cat", "sat")
    assert token_spans([text], joined, dropped)[0][0].tolist() == [0, 1, 2, -1]
    assert token_spans([text], behind, dropped)[0][0].tolist() == [0, 1, 2, -1]
    first, second = token_spans([text], joined, apart)
    assert first[0].tolist() == [0, 1, 2, -1] and second[0].tolist() == [0, 1, 1, 2, 2, -1]
    # What the other side does not write at all has no counterpart.
    assert token_spans([text], apart, dropped)[0][0].tolist() == [0, -1, 1, -1, 2, -1]
    # No cut in the middle is one of both, as the space is on different sides of it.
    assert token_spans([text], joined, behind)[0][0].tolist() == [0, 0, 0, -1]


def test_a_first_token_that_only_one_side_predicts_costs_only_its_span():
    """One tokenizer begins with a special token and the other does not."""
    text = "one two three"
    pieces = ("one", " two", " three")
    with_bos, without = by_hand(text, *pieces), by_hand(text, *pieces, first_is_predicted=False)
    first, second = token_spans([text], with_bos, without)
    assert first[0].tolist() == [-1, 0, 1, -1] and second[0].tolist() == [0, 1, -1]
    # Of real ones: all spans but those of the first token are the same with and without.
    rows = texts()[:10]
    student, teacher = tokenizer("bytes")(rows), tokenizer("unigram")(rows)
    without = OffsetTokenizer(unigram(bos=False))(rows)
    for found in (teacher, without):
        student_spans, spans = token_spans(rows, student, found)
        counts = [row.max() + 1 for row in student_spans]
        assert min(c / len(r.strip()) for c, r in zip(counts, rows, strict=True)) > 0.1
    for a, b in zip(token_spans(rows, student, teacher)[1], spans, strict=True):
        assert a[1:].tolist() == b.tolist()


def test_the_same_tokenizer_has_a_span_per_predicted_token():
    rows = [t for t in texts() if t.isascii()][:10]
    student = tokenizer("words")(rows)
    for row, ids, special in zip(
        token_spans(rows, student, student)[0], student.ids, student.special, strict=True
    ):
        expected = np.where(special[1:], -1, np.arange(len(ids) - 1))
        assert [n for n in row if n >= 0] == list(range((expected >= 0).sum()))
        assert ((row[:-1] >= 0) == (expected >= 0)).all()


def test_bytes_of_one_letter_belong_together():
    rows = ["é🙂x"]
    student = tokenizer("bytes")(rows)
    assert len(student.ids[0]) == 7
    spans, _ = token_spans(rows, student, student)
    # Nothing predicts the first byte, so the whole letter is left out.
    assert spans[0].tolist() == [-1, 0, 0, 0, 0, 1, -1]


def test_unknown_words_and_special_tokens_in_the_text_have_no_span():
    rows = ["the ☃ cat", "the <|endoftext|> cat"]
    student, teacher = tokenizer("bytes")(rows), tokenizer("words")(rows)
    first, second = agree(rows, student, teacher)
    unknown = teacher.ids[0].tolist().index(1)
    assert second[0][unknown - 1] == -1 and (second[0][unknown:-2] >= 0).all()
    end = student.ids[1].tolist().index(0)
    assert first[1][end - 1] == -1 and (first[1][end + 1 : -1] >= 0).any()


def test_offsets_without_spaces_are_mended_and_the_tokenizer_is_left_as_it_was():
    rows = [*HARD, *texts()[:5]]
    trimmed = byte_level(trim_offsets=True)
    trimmed(rows, truncation=True, max_length=4, padding=True)
    before = trimmed.backend_tokenizer.to_str()
    ours, whole = OffsetTokenizer(trimmed)(rows), tokenizer("bytes")(rows)
    for a, b in zip(ours.offsets, whole.offsets, strict=True):
        assert a.tolist() == b.tolist()
    assert trimmed.backend_tokenizer.to_str() == before
    plain = trimmed("a cat", return_offsets_mapping=True)["offset_mapping"]
    assert plain != [tuple(o) for o in OffsetTokenizer(trimmed)(["a cat"]).offsets[0].tolist()]


def test_a_prompt_that_is_not_predicted_has_no_span():
    text = "ask answer more"
    pieces = ("ask", " answer", " more")
    student, teacher = by_hand(text, *pieces), by_hand(text, "ask", " ans", "wer", " more")
    masked = teacher.labels[0].copy()
    masked[:2] = -100
    first, second = token_spans([text], student, dataclasses.replace(teacher, labels=[masked]))
    # A span of which only a part is predicted is left out too.
    assert first[0].tolist() == [-1, -1, 0, -1] and second[0].tolist() == [-1, -1, -1, 0, -1]


def test_a_row_that_is_cut_leaves_the_last_span_out():
    text = "alphabet soup"
    student = by_hand(text, "alpha", "bet", " soup")
    teacher = by_hand(text, "alpha")
    assert token_spans([text], student, teacher)[0][0].tolist() == [0, -1, -1, -1]
    teacher = by_hand(text, "alph")
    assert (token_spans([text], student, teacher)[0][0] == -1).all()


def test_a_batch_for_both_models():
    made = TokenAlignment(byte_level(), unigram(), max_length=20, teacher_max_length=15)
    made = pickle.loads(pickle.dumps(made))
    rows = [*[t for t in texts() if len(t) > 60][:3], "the cat"]
    batch = made(rows)
    own, other = batch, batch["teacher"]
    for side, width in ((own, 20), (other, 15)):
        for name in ("input_ids", "attention_mask", "labels", "spans"):
            assert side[name].shape == (4, width), name
        real = side["attention_mask"].bool()
        assert (side["labels"][~real] == -100).all() and (side["spans"][~real] == -1).all()
        both = real[:, 1:]
        assert (side["labels"][:, :-1][both] == side["input_ids"][:, 1:][both]).all()
    expected = token_spans(
        rows, OffsetTokenizer(byte_level())(rows, 20), tokenizer("unigram")(rows, 15)
    )
    for i in range(4):
        assert own["spans"][i, : len(expected[0][i])].tolist() == expected[0][i].tolist()
        assert other["spans"][i, : len(expected[1][i])].tolist() == expected[1][i].tolist()
        assert set(own["spans"][i].tolist()) == set(other["spans"][i].tolist())
    assert own["spans"].max() > 5


def test_no_texts_are_no_rows():
    nothing = TokenizedTexts([], [], [], [])
    assert token_spans([], nothing, nothing) == ([], [])


def test_what_does_not_go_together_is_refused():
    student = tokenizer("bytes")(["a cat", "two"])
    with pytest.raises(ValueError, match="Each text must be one row, got 1 texts and 2 rows"):
        token_spans(["a cat"], student, student)
    with pytest.raises(ValueError, match=r"row 1 ends at 2, and its text has 1 characters"):
        token_spans(["a cat", "t"], student, student)

    class Slow:
        pass

    with pytest.raises(ValueError, match="Slow does not say where its tokens lie.*fast tokenizer"):
        OffsetTokenizer(Slow())
