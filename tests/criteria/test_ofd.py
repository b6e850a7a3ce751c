import math

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings, strategies as st
from processes import in_two_processes
from torch.testing import assert_close

from lightning_distill.criteria import OFD, ofd, ofd_margin


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_agrees_with_the_definition(batch, channels, side):
    torch.manual_seed(batch + channels + side)
    student, teacher = torch.randn(2, batch, channels, side, side, dtype=torch.float64)
    margin = -torch.rand(channels, dtype=torch.float64)
    expected = torch.zeros(batch, dtype=torch.float64)
    for b in range(batch):
        for c in range(channels):
            pairs = zip(student[b, c].flatten(), teacher[b, c].flatten(), strict=True)
            for s, t in pairs:
                wanted = max(t, margin[c])
                if not s <= wanted <= 0:
                    expected[b] += (s - wanted) ** 2
    assert_close(ofd(student, teacher, margin), expected)


def test_nothing_is_asked_of_what_both_hold_back():
    teacher = -torch.rand(4, 3, 2, 2).double() - 1
    student = (teacher - 1).clamp(max=-2).requires_grad_()
    loss = ofd(student, teacher, torch.full((3,), -1.0).double())
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert not loss.any() and not gradient.any()


def test_without_a_floor_it_is_the_squared_error_where_the_teacher_passes_something_on():
    student, teacher = torch.randn(2, 4, 3, 2, 2).double()
    active, margin = teacher.abs(), torch.full((3,), -math.inf).double()
    expected = (student - active).square().sum((1, 2, 3))
    assert_close(ofd(student, active, margin), expected)
    # As mmrazor has it.
    counted = (student > teacher) | (teacher > 0)
    expected = ((student - teacher).square() * counted).sum((1, 2, 3))
    assert_close(ofd(student, teacher, margin), expected)


def test_the_margin_of_a_batch_norm_is_the_mean_of_its_negative_responses():
    weight, bias = torch.tensor([1.0, -0.5, 2.0]), torch.tensor([0.0, 0.3, -1.0])
    samples = bias + weight * torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([x[x < 0].mean() for x in samples.T])
    assert_close(ofd_margin(weight, bias), expected, atol=1e-2, rtol=1e-2)
    # Of a centred channel it is known.
    assert_close(ofd_margin(weight, bias)[0], torch.tensor(-math.sqrt(2 / math.pi)))


def test_channels_that_are_hardly_ever_negative_have_a_margin_of_three_deviations():
    found = ofd_margin(torch.tensor([0.5, 0.0, 0.0]), torch.tensor([5.0, 1.0, -2.0]))
    assert_close(found, torch.tensor([-1.5, 0.0, -2.0]))


def test_the_running_margin_is_the_mean_of_all_negative_responses_that_counted():
    criterion = OFD()
    batches = [torch.randn(5, 3, 4, 4) - 0.2 for _ in range(3)]
    student, keep = torch.randn(5, 2, 4, 4), torch.tensor([True, True, False, True, False])
    criterion.prepare(student, batches[0])
    assert not criterion.floor.any()
    for batch in batches:
        loss = criterion(student.requires_grad_(), batch, keep)
    seen = torch.cat([b[keep] for b in batches]).transpose(0, 1).flatten(1)
    expected = torch.stack([x[x < 0].mean() for x in seen])
    assert_close(criterion.floor, expected)
    mapped = criterion.connector(student[keep])
    assert_close(loss, ofd(mapped, batches[-1][keep], expected).mean())


def test_evaluation_does_not_move_the_margin_and_the_checkpoint_holds_it():
    student, teacher = torch.randn(5, 2, 4, 4), torch.randn(5, 3, 4, 4)
    criterion = OFD()
    criterion.prepare(student, teacher)
    criterion(student, teacher)
    state = {k: v.clone() for k, v in criterion.state_dict().items()}
    assert {"floor", "seen"} < set(state) and (state["floor"] < 0).all()
    criterion.eval()(student, teacher)
    with torch.no_grad():
        criterion.train()(student, teacher)
    assert all(torch.equal(v, state[k]) for k, v in criterion.state_dict().items())
    again = OFD()
    again.prepare(student, teacher)
    again.load_state_dict(state)
    assert_close(again.eval()(student, teacher), criterion.eval()(student, teacher))


def test_a_teacher_that_is_never_negative_has_no_margin():
    student, teacher = torch.randn(5, 2, 4, 4), torch.rand(5, 3, 4, 4)
    criterion = OFD()
    criterion.prepare(student, teacher)
    assert criterion(student, teacher).isfinite()
    assert not criterion.floor.any() and not criterion.seen.any()


def test_margins_that_are_given_stay():
    student, teacher = torch.randn(5, 2, 4, 4), torch.randn(5, 3, 4, 4)
    for given_, expected in ((-0.5, [-0.5] * 3), ([-1.0, -2.0, 0.0], [-1.0, -2.0, 0.0])):
        criterion = OFD(given_)
        criterion.prepare(student, teacher)
        criterion(student, teacher)
        assert_close(criterion.floor, torch.tensor(expected))
        assert criterion.seen is None
    norm = torch.nn.BatchNorm2d(3)
    criterion = OFD(ofd_margin(norm.weight, norm.bias))
    criterion.prepare(student, teacher)
    assert_close(criterion.floor, torch.full((3,), -math.sqrt(2 / math.pi)))


def test_margins_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"`margin` must not be above 0: .* got 0.5 among"):
        OFD([-1.0, 0.5])
    with pytest.raises(ValueError, match=r"one number per channel of the teacher, 3, got shape"):
        OFD([-1.0, -1.0]).prepare(torch.randn(2, 2, 1, 1), torch.randn(2, 3, 1, 1))


def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 2, 3, 3, generator=generator), torch.randn(
        8, 3, 3, 3, generator=generator
    )


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    student, teacher = maps()
    rows = [slice(0, 3), slice(3, 8)][rank]
    criterion = OFD()
    criterion.prepare(student, teacher)
    criterion(student[rows], teacher[rows])
    results[rank] = (criterion.floor.tolist(), criterion.seen.tolist())
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_margin_of_one_with_all_rows(tmp_path):
    student, teacher = maps()
    criterion = OFD()
    criterion.prepare(student, teacher)
    criterion(student, teacher)
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), results))
        found = dict(results)
    assert found[0] == found[1]
    assert_close(torch.tensor(found[0][0]), criterion.floor)
    assert found[0][1] == criterion.seen.tolist()
