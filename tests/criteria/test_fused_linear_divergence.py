"""The fused head and loss is the plain one, in value and gradient, and is never whole in memory."""

import copy

import pytest
import torch
from heads import Allocations, gradients, Head
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.testing import assert_close

from lightning_distill import criteria
from lightning_distill.criteria import (
    fused_linear_divergence,
    FusedLinearDivergence,
    JSD,
    ReverseKL,
    SampleWeighted,
    SkewKL,
    SkewReverseKL,
    SoftTarget,
    TAID,
    TotalVariation,
)
from lightning_distill.criteria._label_share import sharing_labels
from lightning_distill.schedules import Linear
from lightning_distill.temperatures import FLSW

BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def jsd(p, q, beta):
    if beta in (0.0, 1.0):
        return kl(q, p) if beta else kl(p, q)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


# From T to the criterion and to its definition, written plainly, of logits s and t.
def of_probabilities(criterion, definition, squared=True):
    def plain(s, t, T):
        return (T**2 if squared else 1) * definition((t / T).softmax(-1), (s / T).softmax(-1))

    return criterion, plain


def taid(s, t, T):
    return kl((0.6 * s.detach() + 0.4 * t).softmax(-1), s.softmax(-1))


DIVERGENCES = {
    "SoftTarget": of_probabilities(SoftTarget, kl),
    "ReverseKL": of_probabilities(ReverseKL, lambda p, q: kl(q, p)),
    **{
        f"JSD {beta}": of_probabilities(
            lambda T, beta=beta: JSD(beta, T), lambda p, q, beta=beta: jsd(p, q, beta)
        )
        for beta in BETAS
    },
    "SkewKL": of_probabilities(lambda T: SkewKL(0.1, T), lambda p, q: kl(p, 0.1 * p + 0.9 * q)),
    "SkewReverseKL": of_probabilities(
        lambda T: SkewReverseKL(0.3, T), lambda p, q: kl(q, 0.7 * p + 0.3 * q)
    ),
    "TotalVariation": of_probabilities(
        TotalVariation, lambda p, q: (p - q).abs().sum(-1) / 2, squared=False
    ),
    "TAID": (lambda T: TAID(0.4, step=0.0), taid),
}


def draw(*tokens, widths=(8, 6)):
    student, teacher = (torch.randn(*tokens, w, dtype=torch.float64) for w in widths)
    return student.requires_grad_(), teacher


def naive(plain, T, student, teacher, heads, mask, labels, label_weight):
    """The definition over whole logits, in float64; token by token that counts."""
    vocabulary = min(len(head.weight) for head in heads)
    s, t = (
        head(x)[..., :vocabulary][mask] for head, x in zip(heads, (student, teacher), strict=True)
    )
    loss = plain(s, t, T).sum() / mask.sum()
    if label_weight:
        y = labels[mask]
        of_label = -s.log_softmax(-1)[torch.arange(len(y)), y.clamp(min=0)]
        loss = loss + label_weight * of_label[y >= 0].mean()
    return loss


HEADS = {
    "plain": ({}, {}),
    "bias": ({"bias": True}, {"bias": True}),
    "softcap": ({"softcap": 2.0}, {"softcap": 3.0}),
    "scale": ({"scale": 0.3}, {"scale": 1.7}),
    "all": ({"bias": True, "scale": 0.7, "softcap": 2.5}, {}),
}


@pytest.mark.parametrize("vocabularies", [(11, 11), (11, 14), (14, 11)])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("T", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_it_is_its_definition_in_value_and_gradient(name, T, heads, vocabularies):
    build, plain = DIVERGENCES[name]
    student, teacher = draw(3, 5)
    options = zip(HEADS[heads], (8, 6), vocabularies, strict=True)
    ours, theirs = (Head(width, v, **more) for more, width, v in options)
    mask = torch.arange(15).reshape(3, 5) % 4 != 1
    labels = torch.randint(0, 11, (3, 5)).masked_fill(torch.arange(5) == 2, -100)
    inputs = (student, ours.weight, ours.bias)
    for label_weight in (0.0, 0.3):
        loss = naive(plain, T, student, teacher, (ours, theirs), mask, labels, label_weight)
        # In chunks of two or three tokens; the loss counts twice in what is minimised.
        criterion = FusedLinearDivergence(build(T), label_weight, chunk_mb=600 / 2**20)
        found = criterion(student, teacher, ours, theirs, mask, labels if label_weight else None)
        assert_close(found, loss)
        assert_close(gradients(2 * found, *inputs), gradients(2 * loss, *inputs))
    assert theirs.weight.grad is None


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_plain_way_and_the_values_per_token_are_the_same(name):
    build, plain = DIVERGENCES[name]
    student, teacher = draw(3, 5)
    ours, theirs = Head(8, 11, True, 0.7, 2.5), Head(6, 13, True)
    labels = torch.randint(0, 11, (3, 5)).masked_fill(torch.arange(5) == 2, -100)
    found = []
    for fused in (True, False):
        criterion = FusedLinearDivergence(build(2.0), 0.4, shared_vocab=9, fused=fused)
        loss = criterion(student, teacher, ours, theirs, labels=labels.clamp(max=8))
        found.append((loss, *gradients(loss, student, ours.weight, ours.bias)))
    assert_close(found[0], found[1])
    values = fused_linear_divergence(student, teacher, ours, theirs, build(2.0), 9)
    expected = plain(ours(student)[..., :9], theirs(teacher)[..., :9], 2.0)
    assert_close(values, expected)


@pytest.mark.parametrize(
    "case", ["drawn", "equal", "huge", "one-hot", "teacher", "student", "both"]
)
@pytest.mark.parametrize("T", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_gradient_of_each_divergence_is_that_of_autograd(name, T, case):
    build, _ = DIVERGENCES[name]
    student, teacher = 3 * torch.randn(2, 6, 9, dtype=torch.float64)
    if case == "equal":
        teacher = student.clone()
    elif case == "huge":
        student, teacher = student.sign() * 1e4, teacher.sign() * -1e4
    elif case == "one-hot":
        teacher = torch.eye(9, dtype=torch.float64)[:6] * 1e4
    # What a head rules out, by a bias of minus infinity.
    if case in ("student", "both"):
        student[:, 4] = -torch.inf
    if case in ("teacher", "both"):
        teacher[:, 4] = -torch.inf
    if name == "TAID" and case in ("teacher", "student", "both"):
        return
    # Logits of 1e4 are known to 1e-3 in float32.
    rough = {"rtol": 1e-4, "atol": 1e-2 if case in ("huge", "one-hot") else 1e-5}
    for dtype, close in ((torch.float64, {}), (torch.float32, rough)):
        s, t = student.to(dtype).requires_grad_(), teacher.to(dtype)
        criterion = build(T)
        values, gradient = criterion.with_gradient()(s.detach().clone(), t.clone())
        for i in range(6):
            expected = criterion(s[i : i + 1], t[i : i + 1])
            if expected.isfinite():
                assert_close(values[i], expected.detach(), **close)
                # Smaller, as autograd overflows where the student rules something out.
                assert_close(gradient[i], 8 * gradients(expected / 8, s)[0][i], **close)
            else:
                assert values[i] == torch.inf and gradient[i].isfinite().all()


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    vocabularies=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    chunk=st.integers(1, 4000),
    name=st.sampled_from(list(DIVERGENCES)),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_any_chunk_agree(shape, widths, vocabularies, chunk, name, seed):
    torch.manual_seed(seed)
    build, plain = DIVERGENCES[name]
    student, teacher = draw(*shape, widths=widths)
    heads = [Head(w, v) for w, v in zip(widths, vocabularies, strict=True)]
    mask = torch.rand(shape) < 0.7
    values = fused_linear_divergence(student, teacher, *heads, build(1.5))
    assert values.shape == torch.Size(shape)
    loss = FusedLinearDivergence(build(1.5), chunk_mb=chunk / 2**20)(student, teacher, *heads, mask)
    if not mask.any():
        assert loss == 0
        return
    expected = naive(plain, 1.5, student, teacher, heads, mask, None, 0.0)
    assert_close(loss, expected)
    assert_close(values[mask].mean(), expected.detach())
    inputs = (student, heads[0].weight)
    assert_close(gradients(loss, *inputs), gradients(expected, *inputs))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradcheck(name):
    if name == "TAID":  # its teacher follows the student without gradient
        return
    student, teacher = draw(2, 2, widths=(3, 2))
    ours, theirs = Head(3, 5, True, softcap=2.0), Head(2, 5)
    labels = torch.tensor([[0, 4], [-100, 2]])
    criterion = FusedLinearDivergence(DIVERGENCES[name][0](2.0), 0.3, chunk_mb=100 / 2**20)

    def loss(hidden, weight, bias):
        ours.__dict__.update(weight=weight, bias=bias)
        return criterion(hidden, teacher, ours, theirs, labels=labels)

    weight, bias = ours.weight.detach().clone(), ours.bias.detach().clone()
    del ours._parameters["weight"], ours._parameters["bias"]
    assert torch.autograd.gradcheck(loss, (student, weight.requires_grad_(), bias.requires_grad_()))


def test_no_logits_are_ever_whole():
    student, teacher = draw(1000)
    heads = [Head(8, 500), Head(6, 500)]
    with Allocations() as made:
        FusedLinearDivergence(chunk_mb=0.25)(student, teacher, *heads).backward()
    assert made.largest <= 0.25 * 2**20 / 16 < 1000 * 500 / 16
    with Allocations() as made:
        FusedLinearDivergence(fused=False)(student, teacher, *heads)
    assert made.largest == 1000 * 500


def test_what_is_masked_is_not_computed():
    student, teacher = draw(40, 10)
    heads = [Head(8, 50), Head(6, 50)]
    rows = {}
    for share in (1.0, 0.4):
        mask = torch.arange(400).reshape(40, 10) < 400 * share
        with Allocations() as made:
            FusedLinearDivergence(chunk_mb=1)(student, teacher, *heads, mask)
        rows[share] = made.rows
    # Logits of both, and the two products of the gradient; that of the weight has rows of its own.
    assert rows == {1.0: [400, 400, 400, 50], 0.4: [160, 160, 160, 50]}


def test_what_is_frozen_is_not_computed():
    student, teacher = draw(7)
    heads = [Head(8, 50), Head(6, 50)]
    criterion = FusedLinearDivergence()
    expected = gradients(criterion(student, teacher, *heads), student)
    heads[0].requires_grad_(False)
    with Allocations() as made:
        loss = criterion(student, teacher, *heads)
        loss.backward()
    assert made.rows == [7, 7, 7] and heads[0].weight.grad is None
    assert_close(student.grad, expected[0])
    with torch.no_grad(), Allocations() as made:
        assert_close(criterion(student, teacher, *heads), loss.detach())
    assert made.rows == [7, 7]


def test_only_the_head_may_learn():
    student, teacher = draw(7)
    ours, theirs = Head(8, 11), Head(6, 11)
    loss = FusedLinearDivergence()(student.detach(), teacher, ours, theirs)
    expected = FusedLinearDivergence(fused=False)(student, teacher, ours, theirs)
    assert_close(gradients(loss, ours.weight), gradients(expected, ours.weight))


def test_the_teacher_gets_no_gradient():
    student, teacher = draw(7)
    ours, theirs = Head(8, 11, True), Head(6, 11, True)
    teacher.requires_grad_()
    for fused in (True, False):
        FusedLinearDivergence(fused=fused)(student, teacher, ours, theirs).backward()
    assert teacher.grad is None
    assert theirs.weight.grad is None and theirs.bias.grad is None


def test_tied_embeddings_add_up():
    embedding = nn.Embedding(11, 8, dtype=torch.float64)
    head = nn.Linear(8, 11, bias=False, dtype=torch.float64)
    head.weight = embedding.weight
    theirs, tokens = Head(6, 11), torch.randint(0, 11, (4, 3))
    _, teacher = draw(4, 3)
    found = []
    for fused in (True, False):
        loss = FusedLinearDivergence(fused=fused)(embedding(tokens).tanh(), teacher, head, theirs)
        found.append(gradients(loss, embedding.weight))
    assert_close(*found)


def test_no_token_that_counts_is_zero_with_a_gradient():
    student, teacher = draw(4, 3)
    ours, theirs = Head(8, 11, True), Head(6, 11)
    nothing = torch.zeros(4, 3, dtype=torch.bool)
    for label_weight in (0.0, 1.0):
        labels = torch.full((4, 3), -100)
        loss = FusedLinearDivergence(SoftTarget(), label_weight)(
            student, teacher, ours, theirs, nothing, labels
        )
        found = gradients(loss, student, ours.weight, ours.bias)
        assert loss == 0 and not any(g.any() for g in found)
    # Tokens that count and no label among them.
    loss = FusedLinearDivergence(SoftTarget(), 1.0)(
        student, teacher, ours, theirs, ~nothing, labels
    )
    assert_close(loss, FusedLinearDivergence(SoftTarget())(student, teacher, ours, theirs))


def test_inputs_may_lie_in_memory_as_they_like():
    student, teacher = draw(5, 4)
    ours, theirs = Head(8, 11), Head(6, 11)
    expected = FusedLinearDivergence()(student, teacher, ours, theirs)
    ours.weight = nn.Parameter(ours.weight.detach().T.contiguous().T)
    turned = [x.detach().transpose(0, 1).contiguous().transpose(0, 1) for x in (student, teacher)]
    turned[0].requires_grad_()
    loss = FusedLinearDivergence()(*turned, ours, theirs)
    assert_close(loss, expected)
    assert_close(gradients(loss, turned[0]), gradients(expected, student))


def test_labels_may_be_the_tokens_themselves():
    student, teacher = draw(2, 5)
    heads = [Head(8, 11), Head(6, 11)]
    tokens = torch.randint(0, 11, (2, 5))
    tokens[0, :2] = -100
    aligned = torch.cat([tokens[:, 1:], torch.full((2, 1), -100)], 1)
    found = FusedLinearDivergence(None, 0.5, shift_labels=True)(
        student, teacher, *heads, labels=tokens
    )
    assert_close(found, FusedLinearDivergence(None, 0.5)(student, teacher, *heads, labels=aligned))
    # Labels alone say what counts, also where nothing is asked of them.
    found = FusedLinearDivergence(None, shift_labels=True)(student, teacher, *heads, labels=tokens)
    assert_close(found, FusedLinearDivergence()(student, teacher, *heads, aligned != -100))


on_each_device = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        ),
    ],
)


def near(dtype, tokens=256, width=64, vocabulary=3000):
    """A student close to its teacher, KL about 1e-3, both in a lower precision."""
    hidden = torch.randn(tokens, width)
    weight = torch.randn(vocabulary, width) / width**0.5
    other = weight + 0.05 * torch.randn(vocabulary, width) / width**0.5
    return [x.to(dtype) for x in (hidden, weight, other)]


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("criterion", [SoftTarget(1.0), ReverseKL(), JSD(0.5)])
def test_sixteen_bits_lose_no_more_than_a_float32_loss_on_the_same_logits(criterion, dtype):
    hidden, weight, other = near(dtype)
    ours, theirs = (nn.Linear(64, 3000, bias=x, dtype=dtype) for x in (True, False))
    ours.weight.data, theirs.weight.data = weight, other
    ours.bias.data.zero_()

    def of(hidden, ours, theirs, fused):
        h = hidden.detach().requires_grad_()
        model = FusedLinearDivergence(criterion, fused=fused, chunk_mb=0.02)  # token by token
        loss = model(h, hidden, ours, theirs)
        return loss, *gradients(loss, h, ours.weight, ours.bias)

    exact = of(hidden.double(), copy.deepcopy(ours).double(), copy.deepcopy(theirs).double(), False)
    if isinstance(criterion, SoftTarget):
        assert 5e-4 < exact[0] < 2e-3
    fused, plain = (of(hidden, ours, theirs, fused) for fused in (True, False))
    assert fused[0].dtype == torch.float32 and fused[2].dtype == dtype
    assert_close(fused[0], plain[0], rtol=1e-3, atol=1e-7)
    for i in (1, 2, 3):
        assert relative(fused[i], exact[i]) < 1.1 * relative(plain[i], exact[i])


@on_each_device
def test_float16_keeps_the_digits_of_a_large_vocabulary(device):
    """Each class gets about 1 / 64,000 of the gradient, less than float16 keeps all digits of."""
    vocabulary, width, tokens = 65_536, 16, 64
    student, teacher = torch.randn(2, tokens, width).half().to(device)
    weights = (0.02 * torch.randn(2, vocabulary, width)).half().to(device)

    def of(dtype, fused):
        hidden = student.to(dtype).requires_grad_()
        ours, theirs = (nn.Linear(width, vocabulary, bias=False, dtype=dtype) for _ in range(2))
        ours.weight.data, theirs.weight.data = weights.to(dtype)
        model = FusedLinearDivergence(SoftTarget(1.0), fused=fused)
        # As a GradScaler does it, after the loss.
        loss = 1024 * model(hidden, teacher.to(dtype), ours, theirs)
        return gradients(loss, hidden, ours.weight)

    exact = of(torch.float64, False)
    fused, plain = (of(torch.float16, fused) for fused in (True, False))
    # That of the hidden states is rounded twice, by half a digit at most each time.
    assert relative(fused[0], exact[0]) < 2**-11
    assert relative(fused[1], exact[1]) < relative(plain[1], exact[1]) < 1e-3


@on_each_device
def test_float16_sums_over_many_tokens_stay_in_its_range(device):
    tokens, width = 2048, 4
    hidden = torch.full((tokens, width), 50.0, dtype=torch.float16, device=device)
    ours, theirs = (
        nn.Linear(width, 8, bias=False, dtype=torch.float16, device=device) for _ in range(2)
    )
    ours.weight.data.zero_()
    theirs.weight.data.zero_()
    # The teacher is sure of one class: it gets nearly -1 from every token, over 89,000 in all.
    theirs.weight.data[0] = 1.0
    loss = FusedLinearDivergence(SoftTarget(1.0))(hidden, hidden, ours, theirs)
    (found,) = gradients(loss, ours.weight)
    assert found[0].tolist() == pytest.approx([-50 * 7 / 8] * width, rel=2e-3)
    assert found[1].tolist() == pytest.approx([50 / 8] * width, rel=2e-3)


def test_gradients_of_sixteen_bits_are_summed_in_thirty_two():
    """Token by token they are what they are in one product, to the rounding of the result."""
    hidden, weight, other = near(torch.bfloat16, vocabulary=200)
    ours, theirs = (nn.Linear(64, 200, bias=x, dtype=torch.bfloat16) for x in (True, False))
    ours.weight.data, theirs.weight.data = weight, other
    found = []
    for chunk in (1e-4, 10.0):
        loss = FusedLinearDivergence(chunk_mb=chunk)(hidden, hidden, ours, theirs)
        found.append(gradients(loss, ours.weight, ours.bias))
    for in_parts, whole in zip(*found, strict=True):
        assert relative(in_parts, whole.double()) < 4e-3


def test_autocast_is_that_of_the_plain_way():
    student, teacher = (x.detach().float() for x in draw(30))
    ours, theirs = Head(8, 50, True).float(), Head(6, 50).float()
    student.requires_grad_()
    found = []
    for fused in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            loss = FusedLinearDivergence(fused=fused)(student, teacher, ours, theirs)
        found.append([loss, *gradients(loss, student, ours.weight, ours.bias)])
    exact = FusedLinearDivergence()(student, teacher, ours, theirs)
    assert [x.dtype for x in found[0]] == [torch.float32] * 4
    assert found[0][0] != exact
    assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        assert_close(a, b, rtol=3e-2, atol=3e-3)


def test_the_gradient_may_be_asked_for_twice_and_not_differentiated():
    student, teacher = draw(7)
    heads = [Head(8, 11), Head(6, 11)]
    loss = FusedLinearDivergence()(student, teacher, *heads)
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(3 * loss, student, retain_graph=True)
    assert_close(second, 3 * kept)
    assert_close(first, kept)
    with torch.no_grad():
        heads[0].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, student, retain_graph=True)
    loss = FusedLinearDivergence()(student, teacher, *heads)
    with pytest.raises(RuntimeError, match=r"no second derivative.*Set `fused` to false"):
        torch.autograd.grad(loss, student, create_graph=True)


def test_settings_may_be_schedules():
    student, teacher = draw(7)
    heads = [Head(8, 11), Head(6, 11)]
    schedule = Linear(1.0, 3.0)
    schedule.progress = 0.5
    found = FusedLinearDivergence(SoftTarget(schedule))(student, teacher, *heads)
    assert_close(found, FusedLinearDivergence(SoftTarget(2.0))(student, teacher, *heads))


def test_taid_follows_the_divergence_and_not_the_labels():
    student, teacher = draw(4, 5)
    heads = [Head(8, 11), Head(6, 11)]
    labels = torch.randint(0, 11, (4, 5))
    taids = [TAID(0.4, step=0.1) for _ in range(2)]
    for _ in range(3):
        fused = FusedLinearDivergence(taids[0], 0.5)
        with sharing_labels(3.0) as label:
            loss = fused(student, teacher, *heads, labels=labels).detach()
        fused.observe(loss - 3.0 * label.mean)
        taids[1].observe(taids[1](heads[0](student), heads[1](teacher)).detach())
        student = student.detach() * 0.9
        student.requires_grad_()
    assert taids[0].position > 0.4
    assert_close(taids[0].state_dict(), taids[1].state_dict())
    FusedLinearDivergence(taids[0])(student, teacher, *heads)
    assert_close(taids[0].state_dict(), taids[1].state_dict())


def test_what_cannot_be_fused_is_refused_with_words():
    with pytest.raises(ValueError, match=r"LogitMSE says nothing of its gradient.*Choose SoftTar"):
        FusedLinearDivergence(criteria.LogitMSE())
    with pytest.raises(ValueError, match="FLSW may give each sample its own"):
        FusedLinearDivergence(SoftTarget(FLSW(2.0)))
    with pytest.raises(ValueError, match="`label_weight` must be finite and not negative, got -1"):
        FusedLinearDivergence(label_weight=-1.0)
    with pytest.raises(ValueError, match="`chunk_mb` must be positive, got 0"):
        FusedLinearDivergence(chunk_mb=0.0)
    with pytest.raises(ValueError, match="`shared_vocab` must be at least 1, got 0"):
        FusedLinearDivergence(shared_vocab=0)


CALLS = {
    r"same tokens, got shapes \(4, 3, 8\) and \(4, 2, 6\)": {"teacher": torch.zeros(4, 2, 6)},
    r"`mask` must have one entry per token, shape \(4, 3\), got \(4,\)": {
        "mask": torch.ones(4) > 0
    },
    r"`labels` must have one entry per token, shape \(4, 3\), got \(4, 2\)": {
        "labels": torch.zeros(4, 2, dtype=torch.long)
    },
    r"student's hidden states are 8 wide and its head takes 7.*student.layer_input:PATH": {
        "student_head": Head(7, 11)
    },
    r"teacher's hidden states and head must have one type, got torch.float32, torch.float64": {
        "teacher": torch.zeros(4, 3, 6)
    },
    r"A head must have a `weight` of shape \(vocabulary, width\).*got ReLU": {
        "student_head": nn.ReLU()
    },
    r"`shared_vocab` is 12, and the heads have 11 \(student\) and 13 \(teacher\) rows": {
        "teacher_head": Head(6, 13),
        "shared_vocab": 12,
    },
    r"`label_weight` is 0.5 and there are no labels: add labels=batch.labels": {
        "label_weight": 0.5
    },
    "Label 11 does not exist: the student has 11 classes": {
        "label_weight": 0.5,
        "labels": torch.full((4, 3), 11),
    },
}


@pytest.mark.parametrize("words", CALLS)
def test_what_does_not_fit_is_refused_with_words(words):
    student, teacher = draw(4, 3)
    call = {
        "student": student,
        "teacher": teacher,
        "student_head": Head(8, 11),
        "teacher_head": Head(6, 11),
    } | CALLS[words]
    options = {k: call.pop(k) for k in ("shared_vocab", "label_weight") if k in call}
    with pytest.raises(ValueError, match=words):
        FusedLinearDivergence(**options)(**call)


def test_weights_of_samples_are_refused():
    student, teacher = draw(4, 3)
    fused = SampleWeighted(FusedLinearDivergence())
    heads = {"student_head": Head(8, 11), "teacher_head": Head(6, 11)}
    with pytest.raises(ValueError, match="FusedLinearDivergence cannot be weighed by sample"):
        fused(student, teacher, weight=torch.ones(4), **heads)
