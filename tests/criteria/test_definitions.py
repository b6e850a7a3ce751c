"""Each criterion is its definition, written plainly in float64, at a hundred shapes of inputs.

The test of a criterion's own name goes through its definition entry by entry; here it is written
over whole tensors, without a thought for extreme inputs.
"""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill import criteria


def kl(p, q):
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)


def split(p, y):
    """The label's probability against the rest, and the distribution over the rest."""
    label = torch.nn.functional.one_hot(y, p.shape[-1]).bool()
    target = p[label].view(y.shape)
    rest = p[~label].view(*y.shape, -1)
    return torch.stack([target, rest.sum(-1)], -1), rest / rest.sum(-1, keepdim=True)


class Given:
    """Logits s and t of student and teacher, labels y, temperature T; q and p, and at 1 q1, p1."""

    def __init__(self, shape, classes, temperature, seed):
        generator = torch.Generator().manual_seed(seed)
        size = (2, *shape, classes)
        self.s, self.t = 3 * torch.randn(size, generator=generator, dtype=torch.float64)
        self.y = torch.randint(0, classes, shape, generator=generator)
        self.T = temperature
        self.q, self.p = (self.s / self.T).softmax(-1), (self.t / self.T).softmax(-1)
        self.q1, self.p1 = self.s.softmax(-1), self.t.softmax(-1)

    def loss(self, p):
        return -p.gather(-1, self.y.unsqueeze(-1)).squeeze(-1).log()


def dkd(g):
    (b_s, r_s), (b_t, r_t) = split(g.q, g.y), split(g.p, g.y)
    return g.T**2 * (kl(b_t, b_s) + 8 * kl(r_t, r_s))


def nkd(g):
    (_, r_s), (_, r_t) = split(g.q, g.y), split(g.p, g.y)
    target = (-g.loss(g.p1)).exp() * g.loss(g.q1)
    return target - 1.5 * g.T**2 * (r_t * r_s.log()).sum(-1)


def ofa(g):
    one = torch.nn.functional.one_hot(g.y, g.s.shape[-1])
    return -(((g.p1 + one) ** 1.5 - one) * g.q1.log()).sum(-1)


def tf_kd(g):
    classes = g.s.shape[-1]
    p = torch.full_like(g.s, 0.01 / (classes - 1)).scatter(-1, g.y.unsqueeze(-1), 0.99)
    return g.T**2 * kl((p.log() / g.T).softmax(-1), g.q)


def jsd(g):
    m = 0.3 * g.p + 0.7 * g.q
    return g.T**2 * (0.3 * kl(g.p, m) + 0.7 * kl(g.q, m))


def wsld(g):
    weight = 1 - (-g.loss(g.q1) / g.loss(g.p1).clamp(min=1e-7)).exp()
    return -(g.T**2) * weight * (g.p * g.q.log()).sum(-1)


def sorted_distance(g):
    q, p = (x.sort(-1).values for x in (g.q, g.p))
    return (q - p).abs().sum(-1)


def bernoulli(g):
    q, p = ((-g.loss(x) / g.T).exp() for x in (g.q1, g.p1))
    return kl(torch.stack([p, 1 - p], -1), torch.stack([q, 1 - q], -1))


def margins(x):
    return x[..., :1] - x[..., 1:]


LOGITS = {
    "soft_target": (lambda c, g: c(g.s, g.t, g.T), lambda g: g.T**2 * kl(g.p, g.q)),
    "soft_cross_entropy": (
        lambda c, g: c(g.s, g.t, g.T),
        lambda g: -(g.T**2) * (g.p * g.q.log()).sum(-1),
    ),
    "logit_mse": (lambda c, g: c(g.s, g.t), lambda g: (g.s - g.t).square().mean(-1)),
    "reverse_kl": (lambda c, g: c(g.s, g.t, g.T), lambda g: g.T**2 * kl(g.q, g.p)),
    "jsd": (lambda c, g: c(g.s, g.t, 0.3, g.T), jsd),
    "skew_kl": (
        lambda c, g: c(g.s, g.t, 0.2, g.T),
        lambda g: g.T**2 * kl(g.p, 0.2 * g.p + 0.8 * g.q),
    ),
    "skew_reverse_kl": (
        lambda c, g: c(g.s, g.t, 0.2, g.T),
        lambda g: g.T**2 * kl(g.q, 0.2 * g.q + 0.8 * g.p),
    ),
    "total_variation": (
        lambda c, g: c(g.s, g.t, g.T),
        lambda g: (g.p - g.q).abs().sum(-1) / 2,
    ),
    "taid": (
        lambda c, g: c(g.s, g.t, 0.4),
        lambda g: kl((0.4 * g.t + 0.6 * g.s).softmax(-1), g.q1),
    ),
    "margin_mse": (
        lambda c, g: c(g.s, g.t),
        lambda g: (margins(g.s) - margins(g.t)).square().mean(-1),
    ),
    "listwise_kl": (lambda c, g: c(g.s, g.t, g.T), lambda g: g.T**2 * kl(g.p, g.q)),
    "uld": (lambda c, g: c(g.s, g.t, g.T), sorted_distance),
    "alm": (lambda c, g: c(-g.loss(g.q1), -g.loss(g.p1), g.T), bernoulli),
    "dkd": (lambda c, g: c(g.s, g.t, g.y, 1.0, 8.0, g.T), dkd),
    "nkd": (lambda c, g: c(g.s, g.t, g.y, 1.5, g.T), nkd),
    "wsld": (lambda c, g: c(g.s, g.t, g.y, g.T), wsld),
    "ofa": (lambda c, g: c(g.s, g.t, g.y), ofa),
    "tf_kd": (lambda c, g: c(g.s, g.y, 0.99, g.T), tf_kd),
    "hard_label": (lambda c, g: c(g.s, g.y), lambda g: g.loss(g.q1)),
}


def correlation(a, b, dim):
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    return ((a * b).sum(dim) / a.norm(dim=dim) / b.norm(dim=dim)).mean()


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    classes=st.integers(2, 9),
    temperature=st.sampled_from([0.5, 1.0, 1.7, 4.0, 20.0]),
    seed=st.integers(0, 2**31),
)
def test_logits_of_any_shape(shape, classes, temperature, seed):
    inputs = Given(shape, classes, temperature, seed)
    for name, (call, definition) in LOGITS.items():
        found = call(getattr(criteria, name), inputs)
        assert found.shape == torch.Size(shape), name
        assert_close(found, definition(inputs), rtol=1e-6, atol=1e-7, msg=lambda m, n=name: n + m)
    s = inputs.s
    z = (s - s.mean(-1, keepdim=True)) / (s.std(-1, keepdim=True) + 1e-7)
    assert_close(criteria.logit_standardization(s), z)


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(2, 9), classes=st.integers(2, 9), seed=st.integers(0, 2**31))
def test_relations_of_logits_of_any_shape(rows, classes, seed):
    g = Given([rows], classes, 3.0, seed)
    by_rows, by_columns = correlation(g.q, g.p, 1), correlation(g.q, g.p, 0)
    expected = 9 * (2 * (1 - by_rows) + 1 - by_columns)
    # Cosines of columns without spread are cut at 1e-8.
    assert_close(criteria.dist(g.s, g.t, 2.0, 1.0, 3.0), expected, rtol=1e-5, atol=1e-5)
    batch = (g.p @ g.p.T - g.q @ g.q.T).square().sum() / rows
    between_classes = (g.p.T @ g.p - g.q.T @ g.q).square().sum() / classes
    expected = 9 * kl(g.p, g.q).mean() + batch + between_classes
    assert_close(criteria.mlkd(g.s, g.t, (3.0,)), expected)


def unit(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


def attention_transfer(s, t):
    s, t = (unit(x.square().sum(1).flatten(1)) for x in (s, t))
    return (s - t).norm(dim=1)


def nst(s, t):
    s, t = (unit(x.flatten(2)) for x in (s, t))
    tt, ss, st_ = ((a @ b.mT).square().mean((1, 2)) for a, b in ((t, t), (s, s), (s, t)))
    return tt + ss - 2 * st_


def cwd(s, t):
    q, p = ((x.flatten(2) / 4).softmax(-1) for x in (s, t))
    return 16 * kl(p, q).mean(1)


def scores(queries, keys, heads=2):
    width = queries.shape[-1] // heads
    parts = [slice(i * width, (i + 1) * width) for i in range(heads)]
    found = [queries[..., p] @ keys[..., p].mT / width**0.5 for p in parts]
    return torch.stack(found, dim=1)


def mini_lm_relation(s, t):
    found = []
    for x in (s, t):
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        found.append((heads @ heads.mT / heads.shape[-1] ** 0.5).softmax(-1))
    return kl(found[1], found[0]).mean(1)


@settings(max_examples=100, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    seed=st.integers(0, 2**31),
)
def test_features_of_any_shape(batch, channels, size, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # Channels may differ where nothing is compared channel by channel.
    s, t = (draw(batch, c, *size) for c in channels)
    assert_close(criteria.attention_transfer(s, t), attention_transfer(s, t))
    assert_close(criteria.nst(s, t), nst(s, t))
    s, t = draw(2, batch, channels[0], *size)
    assert_close(criteria.cwd(s, t), cwd(s, t))
    assert_close(criteria.hint(s, t, dim=1), (s - t).square().mean(1))
    assert_close(criteria.attention_mse(s, t), (s - t).square().mean(1))
    assert_close(criteria.cosine_hidden(s, t), 1 - (unit(s) * unit(t)).sum(-1))
    assert_close(criteria.patient_hidden(s, t), (unit(s) - unit(t)).square().sum(-1))
    s, t = s.softmax(-1), t.softmax(-1)
    assert_close(criteria.attention_kl(s, t), kl(t, s).mean(1))
    s, t = (draw(batch, size[0], 2 * c) for c in channels)
    assert_close(criteria.mini_lm_relation(s, t, 2), mini_lm_relation(s, t))
    assert_close(criteria.attention_scores(s, s.flip(1), 2), scores(s, s.flip(1)))
    expected = (scores(s, s.flip(1)) - scores(t, t.roll(1, 1))).square()
    assert_close(criteria.AttentionScores(2)(s, t, s.flip(1), t.roll(1, 1)), expected.mean())


def cka(s, t):
    s, t = (x - x.mean(0) for x in (s, t))
    return 1 - (s.T @ t).square().sum() / ((s.T @ s).norm() * (t.T @ t).norm())


def rkd(s, t):
    d_s, d_t = ((x[:, None] - x).norm(dim=-1) for x in (s, t))
    d_s, d_t = (d / d[d > 0].mean() for d in (d_s, d_t))
    a_s, a_t = ((x[None] - x[:, None]) for x in (s, t))
    a_s, a_t = (torch.nn.functional.normalize(a, dim=-1) for a in (a_s, a_t))
    huber = torch.nn.functional.smooth_l1_loss
    return 25 * huber(d_s, d_t) + 50 * huber(a_s @ a_s.mT, a_t @ a_t.mT)


def pkt(s, t):
    q, p = ((unit(x) @ unit(x).T + 1) / 2 * (1 - torch.eye(len(x))) for x in (s, t))
    q, p = (x / x.sum(1, keepdim=True) for x in (q, p))
    return torch.where(p > 0, p * ((p + 1e-7) / (q + 1e-7)).log(), 0.0).sum(1).mean()


def correlation_congruence(s, t):
    cosines = [unit(x) @ unit(x).T for x in (s, t)]
    k_s, k_t = (math.exp(-0.8) * (1 + 0.8 * c + 0.32 * c**2) for c in cosines)
    return (k_s - k_t).square().mean()


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(2, 7),
    widths=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 2**31),
)
def test_relations_of_features_of_any_shape(rows, widths, seed):
    generator = torch.Generator().manual_seed(seed)
    s, t = (torch.randn(rows, w, generator=generator, dtype=torch.float64) for w in widths)
    assert_close(criteria.cka(s, t), cka(s, t))
    assert_close(criteria.rkd(s, t), rkd(s, t))
    assert_close(criteria.pkt(s, t), pkt(s, t), rtol=1e-6, atol=1e-7)
    assert_close(criteria.correlation_congruence(s, t), correlation_congruence(s, t))
    expected = (unit(s @ s.T) - unit(t @ t.T)).square().mean()
    assert_close(criteria.similarity_preserving(s, t), expected)


def normal(generator):
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def ickd(s, t):
    s, t = (unit(x.flatten(2) @ x.flatten(2).mT) for x in (s, t))
    return (s - t).square().sum((1, 2)) / s.shape[1]


def vid(s, t, v):
    v = v.view(-1, 1, 1)
    return (((s - t).square() / v + v.log()) / 2).mean((1, 2, 3))


def ofd(s, t, margin):
    wanted = torch.max(t, margin.view(-1, 1, 1))
    return ((s - wanted).square() * ((s > wanted) | (wanted > 0))).sum((1, 2, 3))


def ofd_margin(weight, bias):
    x, normal = bias / weight.abs(), torch.distributions.Normal(0.0, 1.0)
    mean = bias - weight.abs() * normal.log_prob(x).exp() / normal.cdf(-x)
    return torch.where(normal.cdf(-x) > 1e-3, mean, -3 * weight.abs())


def ab(s, t, margin):
    wrong = torch.where(t > 0, margin - s, margin + s)
    return torch.where(wrong > 0, wrong**2, 0.0).sum((1, 2, 3))


def standardised(x):
    places = (0, 2, 3)
    return (x - x.mean(places, keepdim=True)) / x.std(places, correction=0, keepdim=True)


@settings(max_examples=100, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(2, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**31),
)
def test_what_trained_parts_are_compared_by_at_any_shape(batch, channels, size, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = normal(generator)
    many = channels[0]
    s, t = draw(2, batch, many, *size)
    assert_close(criteria.ickd(s, t), ickd(s, t))
    # Places may differ, and be fewer than half of the channels or more.
    assert_close(criteria.ickd(s, t[..., :1, :1]), ickd(s, t[..., :1, :1]))
    assert_close(criteria.ab(s, t, 0.7), ab(s, t, 0.7))
    assert_close(criteria.mgd(s, t, 0.3), 0.3 * (s - t).square().sum((1, 2, 3)))
    v = torch.rand(many, generator=generator, dtype=torch.float64) + 0.1
    assert_close(criteria.vid(s, t, v), vid(s, t, v))
    assert_close(criteria.ofd(s, t, -v), ofd(s, t, -v))
    bias = 3 * draw(many)
    assert_close(criteria.ofd_margin(v, bias), ofd_margin(v, bias).clamp(max=0.0))
    difference = unit(s.flatten(1)) - unit(t.flatten(1))
    assert_close(criteria.ft(s, t, 2.0), difference.norm(dim=1))
    assert_close(criteria.ft(s, t, 1.0, "code"), difference.abs().mean(1))
    halved = (standardised(s) - standardised(t)).square().mean() / 2
    assert_close(criteria.pearson_feature(s, t), halved)
    s, t = draw(2, batch, many)
    assert_close(criteria.srd(s, t, 3.0), (((s - t).abs() ** 3).sum() + 1e-12).log())


def fsp(s, t):
    flows = [
        [a.flatten(2) @ b.flatten(2).mT / a[0, 0].numel() for a, b in pairwise(x)] for x in (s, t)
    ]
    return sum((a - b).square().sum((1, 2)) for a, b in zip(*flows, strict=True))


def review_kd(s, t):
    total = 0.0
    for a, b in zip(s, t, strict=True):
        levels = [(a, b)] + [
            [torch.nn.functional.adaptive_avg_pool2d(x, n) for x in (a, b)]
            for n in (4, 2, 1)
            if n < min(a.shape[2:])
        ]
        weights = [0.5**i for i in range(len(levels))]
        errors = [(x - y).square().mean((1, 2, 3)) for x, y in levels]
        total = total + sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)
    return total


def kdsvd(s, t):
    found = []
    for a, b in zip(s, t, strict=True):
        (_, _, a), (_, _, b) = (torch.linalg.svd(x.flatten(2).mT) for x in (a, b))
        rank = min(2, s[0][0, 0].numel())
        a, b = a[:, :rank], b[:, 0]
        b = b * b.sum(1, keepdim=True).sign()
        cosines = (a @ b.unsqueeze(2)).squeeze(2)
        nearest = cosines.abs().argmax(1)
        rows = torch.arange(len(b))
        found.append((a[rows, nearest] * cosines[rows, nearest].sign().unsqueeze(1), b))
    total = 0.0
    for first, second in pairwise(found):
        k_s, k_t = (
            (-(x[:, :, None] - y[:, None]).square() / 8).exp()
            for x, y in zip(first, second, strict=True)
        )
        total = total + (k_s - k_t).square().sum((1, 2))
    return total


@settings(max_examples=100, deadline=None)
@given(
    batch=st.integers(1, 3),
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
)
def test_lists_of_layers_of_any_shape(batch, widths, size, seed):
    draw = normal(torch.Generator().manual_seed(seed))
    s, t = ([draw(batch, c, *size) for c in widths] for _ in range(2))
    assert_close(criteria.fsp(s, t), fsp(s, t))
    assert_close(criteria.review_kd(s, t), review_kd(s, t))
    assert_close(criteria.kdsvd(s, t), kdsvd(s, t))


def crd(s, t, others, times, level):
    def h(a, b):
        return 1 / (1 + (level - (a * b).sum(-1) / 0.3).exp())

    wrong = h(s[:, None], others)
    return -h(s, t).log() - (times * (1 - wrong).log()).sum(1)


def queue_similarity(s, t, queue):
    q, p = (
        (torch.cat([(x * t).sum(1, keepdim=True), x @ queue.T], 1) / tau).softmax(1)
        for x, tau in ((s, 0.3), (t, 0.2))
    )
    return kl(p, q)


@settings(max_examples=100, deadline=None)
@given(
    batch=st.integers(1, 5),
    width=st.integers(1, 6),
    others=st.integers(0, 8),
    seed=st.integers(0, 2**31),
)
def test_what_memories_are_compared_by_at_any_shape(batch, width, others, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = normal(generator)
    s, t, memory = unit(draw(batch, width)), unit(draw(batch, width)), unit(draw(others, width))
    times = torch.randint(0, 4, (batch, others), generator=generator).double()
    level = draw(1)[0]
    assert_close(criteria.crd(s, t, memory, times, level, 0.3), crd(s, t, memory, times, level))
    found = criteria.queue_similarity(s, t, memory, 0.3, 0.2)
    assert_close(found, queue_similarity(s, t, memory), rtol=1e-6, atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dim=st.integers(-4, 3),
    kept=st.lists(st.integers(0, 3), min_size=2, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_what_wrappers_make_of_logits_of_any_shape(shape, dim, kept, seed):
    x = normal(torch.Generator().manual_seed(seed))(*shape)
    pairs = criteria.one_versus_all(x)
    assert_close(pairs.softmax(-1), torch.stack([1 - x.sigmoid(), x.sigmoid()], -1))
    assert torch.equal(pairs[..., 1], x) and not pairs[..., 0].any()
    dim %= len(shape)
    kept = [k % shape[dim] for k in kept]
    found = criteria.class_subset(x, kept, dim - len(shape))
    assert torch.equal(found, torch.stack([x.select(dim, k) for k in kept], -1))


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    rows=st.integers(1, 4),
    normalize=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_weighted_means_of_any_shape(shape, rows, normalize, seed):
    generator = torch.Generator().manual_seed(seed)
    values = normal(generator)(*shape)
    of = shape[:rows]
    weights = torch.rand(of, generator=generator, dtype=torch.float64)
    weights = weights * (torch.rand(of, generator=generator) > 0.2)
    mask = torch.rand(shape, generator=generator) > 0.3
    w = mask * weights.view(*of, *[1] * (len(shape) - len(of)))
    divisor = w.sum() if normalize else mask.sum()
    expected = (w * values).sum() / divisor if divisor else torch.zeros(()).double()
    assert_close(criteria.sample_weighted(values, weights, mask, normalize), expected)


FUNCTIONS = [n for n in criteria.__all__ if n.islower() and n != "masked_mean"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_meets_a_hundred_shapes_here_or_in_its_own_test(name):
    here = Path(__file__)
    own = here.with_name(f"test_{name}.py")
    called = f"criteria.{name}(" in here.read_text() or name in LOGITS
    assert called or "max_examples=100" in own.read_text()
