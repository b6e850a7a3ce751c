"""Masks against counts over many rows, and word by word."""

import numpy as np
import pytest
from tokenizers_of_text import byte_level

from lightning_distill.data import TokenMasks
from lightning_distill.data.language.byte_pairs import FOR_MASKS, train_byte_pairs

LENGTH = 60


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train_byte_pairs(["some words of a text"] * 3, 300, 64, FOR_MASKS)


def masks_of(tokenizer, *options):
    masks = TokenMasks(*options)
    masks.use_tokenizer(tokenizer)
    return masks


def row(tokenizer, length=LENGTH):
    """A row between its special tokens, and words of one to four tokens."""
    random = np.random.default_rng(length)
    ids = random.integers(len(FOR_MASKS), len(tokenizer), length)
    words = np.repeat(np.arange(length), random.integers(1, 5, length))[:length]
    ends = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    return np.concatenate([ends[0], ids, ends[1]]), np.concatenate([[-1], words, [-1]])


@pytest.mark.parametrize("whole_word", [False, True])
def test_shares_are_those_of_bert_and_special_tokens_stay(tokenizer, whole_word):
    masks, (ids, words) = masks_of(tokenizer, 0.15, whole_word), row(tokenizer)
    rows = 1500
    fates, chosen = np.zeros(3), np.zeros(len(ids))
    for number in range(rows):
        given, labels = masks(ids, words, masks.generator(0, number, 0))
        hidden = labels != -100
        assert (labels[hidden] == ids[hidden]).all() and (given[~hidden] == ids[~hidden]).all()
        assert not hidden[[0, -1]].any() and 1 <= hidden.sum() <= round(0.15 * LENGTH)
        became_mask = given[hidden] == tokenizer.mask_token_id
        stayed = given[hidden] == ids[hidden]
        assert not set(given[hidden][~became_mask]) & set(tokenizer.all_special_ids)
        fates += became_mask.sum(), (~became_mask & ~stayed).sum(), stayed.sum()
        chosen += hidden
        if whole_word:
            for word in set(words[hidden]):
                assert hidden[words == word].all()
        else:
            assert hidden.sum() == round(0.15 * LENGTH)
    # Four standard deviations of a binomial share; another token is by chance the same in 1 of 296.
    allowed = 4 * np.sqrt(0.25 / fates.sum())
    assert fates / fates.sum() == pytest.approx([0.8, 0.1, 0.1], abs=allowed)
    assert chosen.sum() / (rows * LENGTH) == pytest.approx(0.15, abs=0.01)
    if not whole_word:
        # Every place as often as any other.
        assert np.abs(chosen[1:-1] / rows - 0.15).max() < 4.5 * np.sqrt(0.15 * 0.85 / rows)


@pytest.mark.parametrize("whole_word", [False, True])
def test_a_short_row_has_one_masked_token_at_least(tokenizer, whole_word):
    masks = masks_of(tokenizer, 0.01, whole_word)
    ids, words = row(tokenizer, 5)
    words[1:-1] = [0, 0, 0, 1, 1]
    for number in range(20):
        hidden = masks(ids, words, masks.generator(0, number, 0))[1] != -100
        # Of whole words one, although none fits into the share.
        assert hidden.sum() in ((2, 3) if whole_word else (1,))


def test_masks_depend_on_seed_row_and_view_alone(tokenizer):
    masks, (ids, words) = masks_of(tokenizer), row(tokenizer)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    found = [tuple(masks(ids, words, masks.generator(*key))[1]) for key in keys]
    assert len(set(found)) == len(keys)
    assert found == [tuple(masks(ids, words, masks.generator(*key))[1]) for key in keys]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((0.0,), "`mask_probability` lies above 0 and below 1, got 0.0"),
        ((1,), "`mask_probability` lies above 0 and below 1, got 1"),
        ((True,), "`mask_probability` must be a number, got True"),
    ],
)
def test_options_that_make_no_masks_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TokenMasks(*options)


def test_a_tokenizer_without_a_mask_token_is_refused():
    with pytest.raises(ValueError, match=r"needs a tokenizer with a mask token.*tokenizer\.mask"):
        masks_of(byte_level())
