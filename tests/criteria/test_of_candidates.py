import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import (
    ListwiseKL,
    LogitMSE,
    MarginMSE,
    of_candidates,
    OfCandidates,
    RKD,
)


def places(sizes):
    return torch.cat([torch.arange(size) for size in sizes])


def vectors(sizes, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(sizes), width, generator=generator, dtype=torch.float64)


def naive(sizes, values, similarity, scale):
    """A list of scores for each query, by plain loops."""
    found, start = [], 0
    for size in sizes:
        row = []
        for i in range(start + 1, start + size):
            score = values[start] @ values[i]
            if similarity == "cosine":
                score = score / (values[start].norm() * values[i].norm())
            row.append(float(scale * score))
        found.append(row)
        start += size
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    # A vector of one number is a score.
    st.integers(2, 6),
    st.sampled_from(["cosine", "dot"]),
    st.integers(0, 2**16),
)
def test_agrees_with_the_definition(sizes, width, similarity, seed):
    values = vectors(sizes, width, seed)
    found, there = of_candidates(values, places(sizes), similarity, 3.0)
    expected = naive(sizes, values, similarity, 3.0)
    assert found.shape == (len(sizes), max(sizes) - 1)
    for own, known, wanted in zip(found, there, expected, strict=True):
        assert known.tolist() == [j < len(wanted) for j in range(found.shape[1])]
        assert own[known].tolist() == pytest.approx(wanted, abs=1e-9)
        assert not own[~known].any()


def test_margin_mse_of_triples_is_that_of_their_scores():
    sizes = [3, 3, 3]
    student, teacher = vectors(sizes, 4, 0), vectors(sizes, 7, 1)
    scores = [torch.tensor(naive(sizes, x, "dot", 1.0)).double() for x in (student, teacher)]
    found = OfCandidates(MarginMSE(), "dot")(student, teacher, places(sizes))
    margins = [s[:, 0] - s[:, 1] for s in scores]
    assert_close(found, (margins[0] - margins[1]).square().mean())


def test_scores_of_a_column_are_taken_as_they_are_and_unknown_ones_do_not_count():
    sizes = [3, 3, 1]
    student, place = vectors(sizes, 4, 0), places(sizes)
    taught = torch.tensor([math.nan, 5.0, 1.0, math.nan, math.nan, 2.0, math.nan]).double()
    criterion = OfCandidates(MarginMSE(), "dot")
    own = naive(sizes, student, "dot", 1.0)[0]
    assert float(criterion(student, taught, place)) == pytest.approx((own[0] - own[1] - 4) ** 2)
    counted = criterion.counted(place=place, teacher=taught)
    assert counted.tolist() == [True, False, False, False, False, False, False]
    # Without scores of a column the last query, which has no candidates, alone does not count.
    assert criterion.counted(place=place).nonzero().flatten().tolist() == [0, 3]
    nothing = criterion(student.requires_grad_(True), taught * math.nan, place)
    nothing.backward()
    assert float(nothing.detach()) == 0.0 and not student.grad.any()


def test_queries_may_have_unequal_numbers_of_candidates_where_the_criterion_knows_them():
    sizes = [4, 3]
    student, teacher, place = vectors(sizes, 4, 0), vectors(sizes, 5, 1), places(sizes)
    scores = [naive(sizes, x, "cosine", 20.0) for x in (student, teacher)]
    expected = 0.0
    for own, taught in zip(*scores, strict=True):
        p, q = (torch.tensor(x, dtype=torch.float64).softmax(0) for x in (taught, own))
        expected += float((p * (p / q).log()).sum()) / 2
    found = OfCandidates(ListwiseKL(), scale=20.0)(student, teacher, place)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def naive_margins(lists) -> float:
    """The mean over lists of at least two, by plain loops."""
    found = []
    for own, taught in lists:
        if len(own) > 1:
            both = zip(own[1:], taught[1:], strict=True)
            found.append(
                sum(((own[0] - s) - (taught[0] - t)) ** 2 for s, t in both) / (len(own) - 1)
            )
    return sum(found) / len(found)


def test_any_criterion_is_given_queries_of_one_length_together():
    sizes = [4, 3, 2, 4, 1]
    student, teacher, place = vectors(sizes, 4, 0), vectors(sizes, 5, 1), places(sizes)
    scores = [naive(sizes, x, "cosine", 1.0) for x in (student, teacher)]
    criterion = OfCandidates(MarginMSE())
    found = criterion(student, teacher, place)
    assert float(found) == pytest.approx(naive_margins(zip(*scores, strict=True)), rel=1e-9)
    # Those with one candidate, and with none, have no margin.
    assert criterion.counted(place=place).nonzero().flatten().tolist() == [0, 4, 9]
    assert OfCandidates(LogitMSE()).counted(place=place).sum() == 4
    with pytest.raises(ValueError, match="RKD compares queries with each other.*these have 1 to 3"):
        OfCandidates(RKD())(student, teacher, place)


def test_scores_of_pairs_have_no_query_and_begin_with_place_one():
    sizes = [3, 1, 2]
    student, teacher = vectors(sizes, 1, 0), vectors(sizes, 1, 1)
    place = places(sizes) + 1
    lists = zip(*(torch.split(x.flatten(), sizes) for x in (student, teacher)), strict=True)
    expected = naive_margins([(own.tolist(), taught.tolist()) for own, taught in lists])
    assert float(OfCandidates(MarginMSE())(student, teacher, place)) == pytest.approx(expected)
    assert OfCandidates(MarginMSE()).counted(place=place).nonzero().flatten().tolist() == [0, 4]
    with pytest.raises(ValueError, match="must have place 0, or 1 in pairs, got 2"):
        of_candidates(student[1:], place[1:])
    with pytest.raises(ValueError, match="got 6 for values of shape \\(5, 1\\)"):
        of_candidates(student[1:], place)


def test_options_are_checked():
    with pytest.raises(ValueError, match="`similarity` must be one of cosine, dot"):
        OfCandidates(MarginMSE(), "euclid")
    with pytest.raises(ValueError, match="`scale` must be positive"):
        OfCandidates(MarginMSE(), scale=0)
    assert not OfCandidates(MarginMSE()).takes_mask
