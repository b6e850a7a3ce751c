"""What is kept of a teacher's tensors, against the definitions in float64."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lightning_distill.cache import Answer, Full, Sampled, TopK

IDS = torch.arange(200).reshape(100, 2)


def there_and_back(encoding, values, ids=None):
    ids = IDS[: len(values)] if ids is None else ids
    return encoding.decode(encoding.encode(values, ids), tuple(values.shape[1:]))


@pytest.mark.parametrize(
    ("dtype", "relative"), [("float32", 0.0), ("bfloat16", 2**-8), ("float16", 2**-11)]
)
def test_full_values_are_rounded_to_so_many_bits(dtype, relative):
    values = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 30
    found = there_and_back(Full(dtype), values)
    assert found.dtype == torch.float32
    assert ((found - values).abs() <= relative * values.abs()).all()
    assert (found == values).all() == (relative == 0.0)


def test_float8_is_off_by_a_sixteenth_of_a_value_and_its_scale_is_that_of_the_vector():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20, 5, 64, generator=generator)
    values *= torch.logspace(-6, 6, 20)[:, None, None]
    found = there_and_back(Full("float8"), values)
    # Three bits of mantissa; below a 2^-6 of 448 numbers are subnormal, 2^-9 of it apart.
    floor = values.abs().amax(-1, keepdim=True) * 2**-9 / 448 * 0.5
    assert ((found - values).abs() <= (values.abs() * 2**-4).maximum(floor) * 1.001).all()
    assert there_and_back(Full("float8"), torch.zeros(2, 3)).eq(0).all()


def test_what_is_too_large_for_a_type_is_refused_and_classes_ruled_out_are_not():
    values = torch.tensor([[1e5, 0.0]])
    with pytest.raises(ValueError, match=r"A value of 1e\+05 is too large for float16; take"):
        Full("float16").encode(values, IDS[:1])
    with pytest.raises(ValueError, match="too large for float16"):
        TopK(1, dtype="float16").encode(values, IDS[:1])
    ruled_out = torch.tensor([[-math.inf, 0.5, 1.0]])
    for encoding in (Full("float16"), TopK(2), Full("bfloat16")):
        assert there_and_back(encoding, ruled_out).tolist() == ruled_out.tolist()
    with pytest.raises(ValueError, match="float8 holds no infinite value"):
        Full("float8").encode(ruled_out, IDS[:1])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(0, 4),
    st.integers(3, 40),
    st.floats(0.3, 5.0),
    st.integers(0, 10**6),
)
def test_the_top_and_the_tail_are_exact_at_their_temperature(rows, tokens, classes, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, tokens, classes) if tokens else (rows, classes)
    values = torch.randn(shape, generator=generator) * 4
    k = 1 + seed % (classes - 1)
    found = there_and_back(TopK(k, tau), values).double()
    right = (values.double() / tau).softmax(-1)
    kept = (found / tau).softmax(-1)
    top = values.topk(k, dim=-1).indices
    torch.testing.assert_close(kept.gather(-1, top), right.gather(-1, top), atol=1e-6, rtol=1e-5)
    others = torch.ones_like(kept).scatter(-1, top, 0.0)
    torch.testing.assert_close(
        (kept * others).sum(-1), (right * others).sum(-1), atol=1e-6, rtol=1e-4
    )
    # The logits of the top are kept as they are.
    torch.testing.assert_close(found.gather(-1, top), values.double().gather(-1, top))


def test_the_tail_is_exact_at_no_other_temperature():
    values = torch.tensor([[4.0, 3.0, 2.0, -1.0]])
    found = there_and_back(TopK(1, temperature=1.0), values)
    assert not torch.allclose(
        (found / 4).softmax(-1)[0, 0], (values / 4).softmax(-1)[0, 0], rtol=1e-3
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(2, 30), st.integers(1, 60))
def test_shares_of_draws_are_a_distribution(rows, tokens, classes, draws):
    shape = (rows, tokens, classes) if tokens else (rows, classes)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draws)) * 3
    shares = there_and_back(Sampled(draws), values).exp()
    torch.testing.assert_close(shares.sum(-1), torch.ones(shape[:-1]))
    counts = shares * draws
    torch.testing.assert_close(counts, counts.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_the_gradient_from_draws_is_that_of_all_logits_on_average(tau):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(12, generator=generator) * 2
    student = torch.randn(12, generator=generator, dtype=torch.float64)
    rows, draws = 4000, 5
    ids = torch.arange(2 * rows).reshape(rows, 2)
    shares = (there_and_back(Sampled(draws, tau), teacher.expand(rows, -1), ids) / tau).exp()
    right = (teacher.double() / tau).softmax(-1)
    # The gradient of the cross-entropy with respect to the student's logits is q - p.
    gradients = (student / tau).softmax(-1) - shares.double()
    error = gradients.mean(0) - ((student / tau).softmax(-1) - right)
    spread = (right * (1 - right) / (draws * rows)).sqrt()
    assert (error.abs() < 4 * spread).all()
    # The largest ones without a tail would be far off: it is no question of the bound.
    top = torch.where(right >= right.topk(5).values[-1], right, 0.0)
    assert ((top / top.sum() - right).abs() > 4 * spread).any()


def test_draws_depend_on_the_row_alone_and_differ_from_row_to_row():
    values = torch.zeros(30, 50)
    one = there_and_back(Sampled(8), values)
    torch.manual_seed(7)
    assert torch.equal(one, there_and_back(Sampled(8), values))
    assert torch.equal(one[10:20], there_and_back(Sampled(8), values[10:20], IDS[10:20]))
    assert len({tuple(row.tolist()) for row in one}) == 30


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Full("double"), "`dtype` must be one of float32"),
        (lambda: TopK(0), "`k` must be a whole number of at least 1, got 0"),
        (lambda: TopK(True), "`k` must be a whole number"),
        (lambda: TopK(2, temperature=0), "`temperature` must be positive"),
        (lambda: TopK(2, dtype="float8"), "must be float32, bfloat16 or float16"),
        (lambda: Sampled(0), "`draws` must be a whole number from 1"),
        (lambda: Sampled(40_000), "to 32767, got 40000"),
        (lambda: Sampled(4, temperature=math.inf), "`temperature` must be positive"),
        (lambda: TopK(3).encode(torch.zeros(1, 3), IDS[:1]), "top_k=3 leaves no tail of 3 classes"),
        (lambda: TopK(1).encode(torch.zeros(5), IDS[:5]), "top_k=1 leaves no tail of 1 classes"),
        (lambda: Sampled(2).encode(torch.zeros(5), IDS[:5]), r"must be \(rows, classes\), the"),
        (
            lambda: Sampled(2).encode(torch.full((1, 3), math.inf), IDS[:1]),
            "the largest finite, got shape \\(1, 3\\). Write them all, with logits=full",
        ),
    ],
)
def test_what_cannot_be_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("encoding", [Full("float8"), TopK(4, 2.0, "float16"), Sampled(9, 0.5)])
def test_a_manifest_says_all_of_an_answer(encoding):
    answer = Answer("hidden_states[3]", True, (4, 8), encoding)
    assert Answer.from_settings(answer.settings()) == answer


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8"])
def test_a_row_of_one_number_has_one_of_each_field(dtype):
    values = torch.tensor([3.0, -500.0, 0.0, 0.25])
    fields = Full(dtype).encode(values, IDS[:4])
    assert all(len(field) == 4 for field in fields.values())
    # Row by row, as a cache reads them.
    for i in range(4):
        one = {name: field[i : i + 1] for name, field in fields.items()}
        assert Full(dtype).decode(one, ()).item() == pytest.approx(values[i].item(), rel=2**-8)


@pytest.mark.parametrize("power", range(-36, 39, 6))
def test_float8_is_as_near_for_vectors_of_any_size(power):
    values = torch.tensor([[1.0, -0.7, 0.5, 0.0]], dtype=torch.float64) * 10.0**power
    found = there_and_back(Full("float8"), values.float()).double()
    assert ((found - values).abs() <= values.abs() * 2**-4 * 1.001).all()


def test_the_tail_is_kept_where_all_others_are_ruled_out():
    values = torch.tensor([[2.0, 1.0, -math.inf, -math.inf]])
    assert there_and_back(TopK(2), values).tolist() == values.tolist()
    # Three are asked for, and only two are possible.
    assert there_and_back(TopK(3), values).tolist() == values.tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_top_logits_are_rounded_as_full_ones_are_and_the_tail_is_not(dtype):
    values = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) * 5
    fields = TopK(4, 2.0, dtype).encode(values, IDS[:20])
    full = Full(dtype).encode(values, IDS[:20])["values"]
    assert torch.equal(fields["values"], full.gather(1, fields["classes"].long()))
    others = values.double().scatter(1, fields["classes"].long(), -math.inf)
    right = 2 * (others / 2).logsumexp(-1, keepdim=True)
    torch.testing.assert_close(fields["rest"].double(), right, atol=1e-5, rtol=0)


def test_largest_and_smallest_numbers_of_draws_can_be_counted():
    certain = torch.tensor([[50.0, -50.0, -50.0]])
    fields = Sampled(32767).encode(certain, IDS[:1])
    assert fields["counts"][0].tolist()[:2] == [32767, 0]
    assert there_and_back(Sampled(32767), certain)[0].exp().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("encoding", [Full("float8"), Full("float16"), TopK(2), Sampled(3)])
@pytest.mark.parametrize("shape", [(0, 5), (0, 4, 5), (2, 0, 5)])
def test_a_batch_without_tokens_is_encoded_too(encoding, shape):
    # Each of its rows is padding alone.
    ids = torch.zeros(shape[0], 2, dtype=torch.long)
    assert there_and_back(encoding, torch.zeros(shape), ids).shape == shape
