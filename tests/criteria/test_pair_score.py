import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import pair_score, PairScore
from lightning_distill.criteria.pair_score import cosines, firsts


def drawn(sizes, width, seed):
    """Vectors of rows of so many texts, scores of candidates, and the places of all texts."""
    generator = torch.Generator().manual_seed(seed)
    texts = sum(sizes)
    vectors = torch.randn(texts, width, generator=generator, dtype=torch.float64)
    labels = torch.rand(texts, generator=generator, dtype=torch.float64)
    place = torch.cat([torch.arange(size) for size in sizes])
    unknown = torch.rand(texts, generator=generator) < 0.3
    return vectors, labels.masked_fill(unknown | (place == 0), math.nan), place


def naive(sizes, vectors, labels):
    """The square of each candidate with a score, by plain loops; 0 for all other texts."""
    found, start = [], 0
    for size in sizes:
        query = vectors[start]
        for i in range(start, start + size):
            cosine = (query @ vectors[i]) / (query.norm() * vectors[i].norm())
            counts = i > start and not math.isnan(labels[i])
            found.append(float((cosine - labels[i]) ** 2) if counts else 0.0)
        start += size
    return torch.tensor(found, dtype=torch.float64)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(0, 2**16),
)
def test_agrees_with_the_definition(sizes, width, seed):
    vectors, labels, place = drawn(sizes, width, seed)
    expected = naive(sizes, vectors, labels)
    assert_close(pair_score(vectors, labels, place), expected)
    criterion = PairScore()
    counted = criterion.counted(labels=labels, place=place)
    assert counted is not None
    mean = expected.sum() / max(int(counted.sum()), 1)
    assert_close(criterion(vectors, labels, place), mean)
    assert int(counted.sum()) == int((~labels.isnan()).sum())


def test_what_has_no_score_gives_no_gradient_and_no_nan():
    vectors, labels, place = drawn([3, 2], 4, 0)
    labels[:3] = math.nan
    labels[4] = 0.5
    vectors.requires_grad_(True)
    PairScore()(vectors, labels, place).backward()
    assert not vectors.grad[:3].any() and vectors.grad[3:].abs().sum() > 0
    assert torch.isfinite(vectors.grad).all()
    nothing = PairScore()(vectors, labels * math.nan, place)
    assert float(nothing.detach()) == 0.0


def test_a_mask_leaves_texts_out():
    vectors, labels, place = drawn([2, 2], 4, 1)
    labels[1], labels[3] = 0.2, 0.9
    mask = torch.tensor([1, 1, 1, 0])
    alone = PairScore()(vectors[:2], labels[:2], place[:2])
    assert_close(PairScore()(vectors, labels, place, mask), alone)
    assert PairScore().counted(labels=labels, place=place, mask=mask).sum() == 1


def test_firsts_and_cosines_of_candidates():
    assert firsts(torch.tensor([0, 1, 2, 0, 0, 1])).tolist() == [0, 0, 0, 3, 4, 4]
    found = cosines(torch.eye(3), torch.tensor([0, 1, 0]))
    assert found[1] == 0 and found[0].isnan() and found[2].isnan()


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="first text of a batch must have place 0, got 1"):
        pair_score(torch.ones(2, 3), torch.zeros(2), torch.tensor([1, 0]))
    # Where types are not checked, as in tests, the sizes are.
    with pytest.raises((ValueError, TypeError), match="a label and a place|labels"):
        pair_score(torch.ones(2, 3), torch.zeros(3), torch.tensor([0, 1, 2]))
