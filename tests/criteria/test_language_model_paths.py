"""Every way to a language model's loss is one definition, written plainly in float64.

Ways: whole logits with autograd, in chunks, from hidden states and heads on disk, from the largest
logits or drawn classes, live and on disk. Value, gradient of hidden states, head weight and bias.
"""

import itertools

import pytest
import torch
from heads import Head
from torch.testing import assert_close

from lightning_distill.cache import (
    Answer,
    Full,
    row_ids,
    row_lengths,
    Sampled,
    ShardWriter,
    TopK,
    write_heads,
    write_manifest,
)
from lightning_distill.criteria import (
    FusedLinearCrossEntropy,
    FusedLinearDivergence,
    FusedLinearSampled,
    FusedLinearTopK,
    JSD,
    ReverseKL,
    SoftTarget,
)
from lightning_distill.models.head import Head as KeptHead
from lightning_distill.models.source import Source
from lightning_distill.teachers import CachedTeacher

TEMPERATURES = (0.5, 1.0, 2.0)
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
ROWS, TOKENS, WIDTH = 3, 5, 6
OPTIONS = {"plain": {}, "bent": {"bias": True, "scale": 0.7, "softcap": 2.5}}
# Of student and teacher; padded on either side.
VOCABULARIES = ((11, 11), (11, 14), (14, 11))
TEACHERS = [(kind, size) for kind in OPTIONS for size in (11, 14)]
DRAWS, K = 7, 4


def _drawn():
    generator = torch.Generator().manual_seed(3)
    # What float32 holds, so that a cache of float32 is exact.
    hidden = torch.randn(ROWS, TOKENS, WIDTH, generator=generator).double()
    heads = {}
    for kind, size in TEACHERS:
        heads[kind, size] = _head(kind, size, WIDTH, generator)
    return hidden, heads


def _head(kind, size, width, generator):
    head = Head(width, size, **OPTIONS[kind])
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double()
    return head


HIDDEN, HEADS = _drawn()
INPUTS = {"input_ids": torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS)}
INPUTS["attention_mask"] = (torch.arange(TOKENS) < torch.tensor([[5], [3], [4]])).long()
MASK = INPUTS["attention_mask"].bool()
LABELS = torch.randint(0, 11, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
LABELS = LABELS.masked_fill(~MASK | (torch.arange(TOKENS) == 2), -100)


def name_of(what, kind, size, T=None):
    return f"{what}_{kind}_{size}" + ("" if T is None else f"_{int(10 * T)}")


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """From a source to what a teacher on disk says of it; all heads and encodings in one cache."""
    folder = tmp_path_factory.mktemp("answers")
    answers, values, heads = [], {}, {}

    def add(name, encoding, tensor):
        answers.append(Answer(name, True, tuple(tensor.shape[2:]), encoding))
        values[name] = tensor

    for (kind, size), head in HEADS.items():
        path = name_of("head", kind, size)
        heads[path] = KeptHead(head.weight, head.bias, head.scale or 1.0, head.softcap)
        add(f"layer_input:{path}", Full(), HIDDEN)
        logits = head(HIDDEN).detach()
        for T in TEMPERATURES:
            add(name_of("top", kind, size, T), TopK(K, T), logits)
            add(name_of("all", kind, size, T), TopK(size - 1, T), logits)
            add(name_of("drawn", kind, size, T), Sampled(DRAWS, T), logits)
    teacher = {"fingerprint": "paths", "class": "Head", "labels": None, "modules": []}
    teacher |= {"inputs": list(INPUTS), "outputs": {}}
    writer = ShardWriter(folder, answers, "paths")
    writer.add(row_ids(INPUTS), values, row_lengths(INPUTS))
    facts = writer.write("shard-00000")
    write_manifest(folder, {"teacher": teacher}, answers, [facts], write_heads(folder, heads))
    kept = CachedTeacher(folder)

    def recalled(*texts):
        sources = [Source.parse(f"teacher.{text}") for text in texts]
        _, found = kept.answers(INPUTS, sources)
        return [found[source] for source in sources]

    return recalled


# The reference.


def logits_of(hidden, head):
    """Every logit by itself."""
    z = torch.einsum("rtw,vw->rtv", hidden, head.weight)
    z = z if head.bias is None else z + head.bias
    z = z * (head.scale or 1.0)
    return z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def jsd(p, q, beta):
    if beta in (0.0, 1.0):
        return kl(q, p) if beta else kl(p, q)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def tail_bucket(t, s, k, T, shared):
    """KL on the largest of all the teacher's classes that the student has, others as one."""
    p, q = (t / T).exp(), (s / T).softmax(-1)
    found = []
    for a, b in zip(p.flatten(0, 1), q.flatten(0, 1), strict=True):
        top = sorted(range(len(a)), key=lambda c: -float(a[c]))[:k]
        inside = [c for c in top if c < shared]
        rest = [c for c in range(len(a)) if c not in top]
        total = a[inside].sum() + a[rest].sum()
        of_rest = [c for c in range(shared) if c not in inside]
        value = (a[inside] / total * (a[inside] / total / b[inside]).log()).sum()
        P, Q = a[rest].sum() / total, b[of_rest].sum()
        found.append(value + P * (P / Q).log())
    return T**2 * torch.stack(found).reshape(t.shape[:-1])


def drawn_cross_entropy(answer, s, T, shared):
    log_q = (s / T).log_softmax(-1).flatten(0, 1)
    pairs = zip(answer["classes"].flatten(0, 1), answer["counts"].flatten(0, 1), strict=True)
    found = []
    for own, (classes, counts) in zip(log_q, pairs, strict=True):
        kept = [
            (c, n) for c, n in zip(classes.tolist(), counts.tolist(), strict=True) if c < shared
        ]
        total = max(sum(n for _, n in kept), 1)
        found.append(-sum((n / total * own[c] for c, n in kept), 0.0 * own[0]))
    return T**2 * torch.stack(found).reshape(s.shape[:-1])


class Student:
    """Its hidden states and its head, and what a loss of them is to be."""

    def __init__(self, kind, size):
        generator = torch.Generator().manual_seed(5)
        self.hidden = torch.randn(ROWS, TOKENS, 8, generator=generator).double().requires_grad_()
        self.head = _head(kind, size, 8, generator)
        self.inputs = [self.hidden, self.head.weight]
        self.inputs += [] if self.head.bias is None else [self.head.bias]

    def check(self, found, values, mask, **close):
        expected = values[mask].sum() / mask.sum()
        assert_close(found, expected, **close)
        ours = torch.autograd.grad(found, self.inputs)
        theirs = torch.autograd.grad(expected, self.inputs)
        assert_close(ours, theirs, **close)


def cases():
    for kind, sizes, masked in itertools.product(OPTIONS, VOCABULARIES, (True, False)):
        student, teacher = Student(kind, sizes[0]), HEADS[kind, sizes[1]]
        yield kind, sizes, student, teacher, MASK if masked else None


DIVERGENCES = {
    "SoftTarget": (SoftTarget, kl),
    "ReverseKL": (ReverseKL, lambda p, q: kl(q, p)),
    **{
        f"JSD {beta}": (
            lambda T, beta=beta: JSD(beta, T),
            lambda p, q, beta=beta: jsd(p, q, beta),
        )
        for beta in BETAS
    },
}


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("way", ["plain", "fused", "hidden states on disk"])
def test_divergences_of_whole_distributions(way, name, T, cached):
    build, definition = DIVERGENCES[name]
    for kind, sizes, student, head, mask in cases():
        hidden, teacher_head = HIDDEN, head
        # Of padding there is nothing on disk.
        mask = MASK if way.endswith("disk") else mask
        if way.endswith("disk"):
            path = name_of("head", kind, sizes[1])
            hidden, teacher_head = cached(f"layer_input:{path}", f"head:{path}")
            assert (hidden[~MASK] == 0).all()
        shared = min(sizes)
        s, t = logits_of(student.hidden, student.head), logits_of(HIDDEN, head).detach()
        p, q = ((z[..., :shared] / T).softmax(-1) for z in (t, s))
        criterion = FusedLinearDivergence(build(T), chunk_mb=400 / 2**20, fused=way != "plain")
        found = criterion(student.hidden, hidden, student.head, teacher_head, mask)
        counted = torch.ones_like(MASK) if mask is None else mask
        student.check(found, T**2 * definition(p, q), counted)


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("way", ["plain", "fused", "plain, on disk", "fused, on disk"])
def test_the_largest_classes_and_their_tail(way, T, cached):
    for kind, sizes, student, head, mask in cases():
        fused, disk = way.startswith("fused"), way.endswith("disk")
        mask = MASK if disk else mask
        shared, t = min(sizes), logits_of(HIDDEN, head).detach()
        counted = torch.ones_like(MASK) if mask is None else mask
        # On disk are float32.
        close = {"rtol": 2e-5, "atol": 2e-6} if disk else {}
        for what, k in (("top", K), ("all", min(sizes) - 1)):
            if what == "all" and sizes[1] != 11:
                continue
            (answer,) = cached(f"sparse:{name_of(what, kind, sizes[1], T)}") if disk else [t]
            s = logits_of(student.hidden, student.head)[..., :shared]
            # Of live logits what the student lacks is left out first.
            expected = tail_bucket(t if disk else t[..., :shared], s, k, T, shared)
            criterion = FusedLinearTopK(k, T, chunk_mb=400 / 2**20, fused=fused)
            found = criterion(student.hidden, answer, student.head, mask)
            if what == "all":
                p, q = (t[..., :shared] / T).softmax(-1), (s / T).softmax(-1)
                assert_close(expected, T**2 * kl(p, q))
            student.check(found, expected, counted, **close)


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("fused", [True, False])
def test_drawn_classes(fused, T, cached):
    for kind, sizes, student, _, _ in cases():
        (answer,) = cached(f"sparse:{name_of('drawn', kind, sizes[1], T)}")
        shared = min(sizes)
        s = logits_of(student.hidden, student.head)[..., :shared]
        criterion = FusedLinearSampled(temperature=T, chunk_mb=400 / 2**20, fused=fused)
        found = criterion(student.hidden, answer, student.head, MASK)
        expected = drawn_cross_entropy(answer, s, T, shared)
        student.check(found, expected, MASK, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_labels_alone_and_beside_a_teacher(fused):
    counted = LABELS != -100
    for _, sizes, student, head, mask in cases():
        shared = min(sizes)
        of_label = counted if mask is None else counted & mask
        for size, weight, T in ((sizes[0], None, 1.0), (shared, 0.3, 2.0)):
            s = logits_of(student.hidden, student.head)
            log_q = s[..., :size].log_softmax(-1)
            values = -log_q.gather(-1, LABELS.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            if weight is None:
                criterion = FusedLinearCrossEntropy(chunk_mb=200 / 2**20, fused=fused)
                found = criterion(student.hidden, LABELS, student.head, mask)
                student.check(found, values, of_label)
                continue
            criterion = FusedLinearDivergence(SoftTarget(T), weight, fused=fused)
            arguments = student.hidden, HIDDEN, student.head, head
            found = criterion(*arguments, mask, LABELS)
            t = logits_of(HIDDEN, head).detach()
            p, q = ((z[..., :shared] / T).softmax(-1) for z in (t, s))
            which = counted if mask is None else mask
            share = which.sum() / of_label.sum() * of_label
            student.check(found, T**2 * kl(p, q) + weight * share * values, which)
