"""Top-k with a tail is its definition, exact at the ends of what probabilities can be."""

import math

import pytest
import torch
from heads import Allocations, encoded, gradients, Head
from hypothesis import given as drawn, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.cache import TopK
from lightning_distill.criteria import fused_linear_top_k, FusedLinearTopK, SampleWeighted


def definition(s, t, k, T):
    """Written plainly, token by token."""
    p, q = (t / T).softmax(-1), (s / T).softmax(-1)
    found = []
    for a, b in zip(p, q, strict=True):
        K = a.topk(k).indices
        rest = torch.ones_like(a, dtype=torch.bool)
        rest[K] = False
        P, Q = a[rest].sum(), b[rest].sum()
        found.append((a[K] * (a[K] / b[K]).log()).sum() + P * (P / Q).log())
    return T**2 * torch.stack(found)


def draw(*tokens, vocabulary=11):
    student = torch.randn(*tokens, 8, dtype=torch.float64).requires_grad_()
    return student, 2 * torch.randn(*tokens, vocabulary, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 2.5}])
@pytest.mark.parametrize("T", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("fused", [True, False])
def test_it_is_its_definition_in_value_and_gradient(T, options, fused):
    student, teacher = draw(3, 5)
    head = Head(8, 11, **options)
    mask = torch.arange(15).reshape(3, 5) % 4 != 1
    inputs = [x for x in (student, head.weight, head.bias) if x is not None]
    for k in (1, 4, 10):
        expected = definition(head(student)[mask], teacher[mask], k, T).mean()
        criterion = FusedLinearTopK(k, T, chunk_mb=250 / 2**20, fused=fused)
        # Of a cache in float32.
        ways = ((teacher, {}), (encoded(TopK(k, T), teacher), {"rtol": 1e-5, "atol": 1e-5}))
        for given, close in ways:
            found = criterion(student, given, head, mask)
            assert_close(found, expected, **close)
            ours = torch.autograd.grad(2 * found, inputs)
            theirs = torch.autograd.grad(2 * expected, inputs, retain_graph=True)
            assert_close(ours, theirs, **close)


@settings(max_examples=100, deadline=None)
@drawn(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    vocabulary=st.integers(2, 20),
    chunk=st.integers(1, 3000),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_shape_and_any_chunk_agree(shape, vocabulary, chunk, seed, data):
    torch.manual_seed(seed)
    student, teacher = draw(*shape, vocabulary=vocabulary)
    head, k = Head(8, vocabulary), data.draw(st.integers(1, vocabulary - 1))
    values = definition(head(student).flatten(0, -2), teacher.flatten(0, -2), k, 1.0)
    assert_close(fused_linear_top_k(student, teacher, head, k), values.reshape(shape))
    found = FusedLinearTopK(k, chunk_mb=chunk / 2**20)(student, teacher, head)
    assert_close(found, values.mean())


def test_all_but_one_class_are_the_whole_divergence():
    student, teacher = draw(20)
    head = Head(8, 11)
    log_q, log_p = head(student).log_softmax(-1), teacher.log_softmax(-1)
    whole = (log_p.exp() * (log_p - log_q)).sum(-1)
    found = fused_linear_top_k(student, teacher, head, 10)
    assert_close(found, whole)
    # Fewer say less, and never more.
    before = found
    for k in (6, 3, 1):
        now = fused_linear_top_k(student, teacher, head, k)
        assert (now <= before + 1e-12).all() and (now < before).any()
        before = now


def of_logits(s, t, k, dtype):
    """Value and gradient in the logits: a head that passes them on."""
    head = Head(s.shape[-1], s.shape[-1]).to(dtype)
    head.weight.data = torch.eye(s.shape[-1], dtype=dtype)
    hidden = s.to(dtype)[None].requires_grad_()
    loss = FusedLinearTopK(k)(hidden, t.to(dtype)[None], head)
    return loss, torch.autograd.grad(loss, hidden)[0][0]


ENDS = {
    # Student, teacher, of which two are the largest.
    "Q near 1": ([40.0, 39.0, -30.0, -31.0], [1.0, 2.0, 0.0, -1.0]),
    "Q is 1 in float32": ([90.0, 80.0, -60.0, -61.0], [1.0, 2.0, 0.0, -1.0]),
    "P near 1": ([1.0, 0.5, 0.0, -0.5], [40.0, 39.0, -30.0, -31.0]),
    "P and Q near 1, and equal": ([40.0, 39.0, -30.0, -31.0], [40.0, 39.0, -30.0, -31.0]),
    "P is 1": ([1.0, 0.5, 0.0, -0.5], [2.0, 1.0, -math.inf, -math.inf]),
    "one class is all": ([1.0, 0.5, 0.0, -0.5], [200.0, -math.inf, -math.inf, -math.inf]),
    "P near 0": ([1.0, 0.5, 0.0, -0.5], [1e-9, 0.0, -1e-9, -2e-9]),
    "huge": ([1e4, -1e4, 1e4, 0.0], [1e4, 9e3, -1e4, 0.0]),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_is_lost_where_probabilities_are_near_0_and_1(name, dtype):
    s, t = (torch.tensor(x, dtype=torch.float64) for x in ENDS[name])
    p, q = t.softmax(-1), s.log_softmax(-1)
    K, rest = t.topk(2).indices, t.topk(4).indices[2:]
    log_rest = q[rest].logsumexp(-1)
    tail = p[rest].sum()
    expected = (p[K] * (t.log_softmax(-1)[K] - q[K])).where(p[K] > 0, 0.0).sum()
    expected += tail * (t.log_softmax(-1)[rest].logsumexp(-1) - log_rest) if tail > 0 else 0.0
    gradient = torch.zeros_like(s)
    gradient[K] = q[K].exp() - p[K]
    gradient[rest] = (q[rest] - log_rest).exp() * (log_rest.exp() - tail)
    loss, found = of_logits(s, t, 2, dtype)
    # Logits of 100 are known to 1e-5 in float32, those of 1e4 to 1e-3.
    rough = {"rtol": 1e-5, "atol": 2e-3 if name == "huge" else 1e-6}
    close = {} if dtype == torch.float64 else rough
    assert_close(loss, expected.to(dtype), **close)
    assert_close(found, gradient.to(dtype), **close)
    if name == "P and Q near 1, and equal":
        assert abs(loss) < 1e-30 if dtype == torch.float64 else abs(loss) < 1e-12


def test_what_the_student_rules_out_is_infinite_with_a_gradient():
    s = torch.tensor([0.0, -math.inf, 1.0, 0.5])
    t = torch.tensor([0.5, 2.0, 1.0, 0.0])
    head = Head(4, 4, bias=True).float()
    head.weight.data, head.bias.data = torch.zeros(4, 4), s
    loss = FusedLinearTopK(2)(torch.zeros(1, 4), t[None], head)
    (found,) = torch.autograd.grad(loss, head.bias)
    assert loss == math.inf and found.isfinite().all()
    assert_close(found[1], -t.softmax(-1)[1])


@pytest.mark.parametrize("vocabularies", [(11, 14), (14, 11)])
def test_padded_vocabularies_compare_what_both_have(vocabularies):
    ours, theirs = vocabularies
    student, teacher = draw(20, vocabulary=theirs)
    # A model that was trained knows that padding is never next.
    teacher[:, 11:] -= 30
    head = Head(8, ours)
    s, t = head(student)[:, :11], teacher[:, :11]
    expected = definition(s, t, 4, 1.0)
    assert_close(fused_linear_top_k(student, teacher, head, 4), expected)
    found = fused_linear_top_k(student, encoded(TopK(4), teacher), head)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    loss = FusedLinearTopK(4)(student, encoded(TopK(4), teacher), head)
    whole = torch.autograd.grad(expected.mean(), [student, head.weight])
    assert_close(gradients(loss, student, head.weight), whole, rtol=1e-4, atol=1e-5)


def test_classes_that_the_student_lacks_are_left_out_of_the_largest():
    student, teacher = draw(6, vocabulary=14)
    teacher[:, 11:] -= 60
    teacher[0, 12] += 70
    teacher[1, 11:] += 80
    kept = encoded(TopK(3), teacher)
    head = Head(8, 11)
    s = head(student)
    # Of row 0 two of the three largest are compared; of row 1 none, so that all is one class.
    t = teacher.softmax(-1)
    t[0, 11:] = 0
    expected = torch.zeros(6, dtype=torch.float64)
    for i in (0, 2, 3, 4, 5):
        K = [c for c in teacher[i].topk(3).indices.tolist() if c < 11]
        p, q = t[i] / t[i].sum(), s[i].softmax(-1)
        tail, rest = 1 - p[K].sum(), 1 - q[K].sum()
        expected[i] = (p[K] * (p[K] / q[K]).log()).sum() + tail * (tail / rest).log()
    for fused in (True, False):
        loss = FusedLinearTopK(3, fused=fused)(student, kept, head)
        assert_close(loss, expected.mean(), rtol=1e-5, atol=1e-6)
        found = torch.autograd.grad(loss, [student, head.weight], retain_graph=True)
        whole = torch.autograd.grad(expected.mean(), [student, head.weight], retain_graph=True)
        assert_close(found, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_retained_mass_is_that_of_the_tokens_that_count(fused):
    student, teacher = draw(4, 5)
    mask = torch.arange(20).reshape(4, 5) % 3 != 0
    criterion = FusedLinearTopK(3, fused=fused, chunk_mb=250 / 2**20)
    assert criterion.logged() == {}
    expected = teacher.softmax(-1).topk(3).values.sum(-1)[mask].mean()
    for given in (teacher, encoded(TopK(3), teacher)):
        criterion(student, given, Head(8, 11), mask)
        found = criterion.logged()["retained_mass"]
        assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert not found.requires_grad


def test_cross_entropy_may_be_in_the_same_pass():
    student, teacher = draw(4, 5)
    head = Head(8, 11)
    labels = torch.randint(0, 11, (4, 5)).masked_fill(torch.arange(5) == 2, -100)
    found = []
    for fused in (True, False):
        criterion = FusedLinearTopK(3, 2.0, label_weight=0.4, fused=fused)
        loss = criterion(student, teacher, head, labels=labels)
        found.append((loss, *gradients(loss, student, head.weight)))
    assert_close(found[0], found[1])
    plain = FusedLinearTopK(3, 2.0)(student, teacher, head, labels=labels)
    of_label = torch.nn.functional.cross_entropy(head(student).flatten(0, 1), labels.flatten())
    assert_close(found[0][0], plain + 0.4 * of_label)


def test_no_logits_of_the_student_are_ever_whole_nor_those_of_the_cache():
    student, teacher = draw(1000, vocabulary=500)
    kept = encoded(TopK(4), teacher)
    with Allocations() as made:
        FusedLinearTopK(chunk_mb=0.25)(student, kept, Head(8, 500)).backward()
    assert made.largest <= 0.25 * 2**20 / 8 < 1000 * 500 / 8


def test_what_does_not_fit_is_refused_with_words():
    student, teacher = draw(4, 3)
    head = Head(8, 11)
    with pytest.raises(ValueError, match=r"keeps top_k at temperature 1, and .* at 2.*job.temper"):
        FusedLinearTopK(temperature=2.0)(student, encoded(TopK(3), teacher), head)
    drawn = encoded(TopK(3), teacher) | {"kind": "sampled"}
    with pytest.raises(ValueError, match=r"were kept as sampled, .* reads top_k.*job.logits=top_k"):
        FusedLinearTopK()(student, drawn, head)
    with pytest.raises(ValueError, match="`k` is 64, which leaves no tail of 11 classes"):
        FusedLinearTopK()(student, teacher, head)
    with pytest.raises(ValueError, match=r"of the same tokens, got .*\(4, 3, 8\).*\(4, 2, 11\)"):
        FusedLinearTopK()(student, teacher[:, :2], head)
    with pytest.raises(ValueError, match=r"`shared_vocab` is 12, and there are 11 .* 11"):
        FusedLinearTopK(shared_vocab=12)(student, teacher, head)
    with pytest.raises(ValueError, match="`k` must be a whole number of at least 1, got 0"):
        FusedLinearTopK(k=0)
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        FusedLinearTopK(temperature=0.0)
    weighed = SampleWeighted(FusedLinearTopK(3))
    with pytest.raises(ValueError, match=r"FusedLinearTopK cannot be weighed.*SoftTarget"):
        weighed(student, teacher, student_head=head, weight=torch.ones(4))
