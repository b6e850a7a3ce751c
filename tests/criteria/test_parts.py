"""What every criterion with parts to train must do."""

import copy

import pytest
import torch
from torch.testing import assert_close

from lightning_distill import Objective, Term
from lightning_distill.criteria import AB, FT, ICKD, OFD, VID
from lightning_distill.features import Source

CRITERIA = {c.__name__: c for c in (AB, FT, ICKD, OFD, VID)}
EACH = pytest.mark.parametrize("name", CRITERIA)
NO_LAYERS = {"student": [], "teacher": [], "batch": []}


def maps(batch=6, channels=(2, 3), side=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(batch, c, side, side, generator=generator, dtype=torch.float64)
        for c in channels
    )
    return student.to(dtype), teacher.to(dtype)


def made(name, **options):
    student, teacher = maps(**options)
    criterion = CRITERIA[name]()
    torch.manual_seed(0)
    criterion.prepare(student, teacher)
    return criterion, student, teacher


@EACH
def test_before_prepare_it_says_what_to_do(name):
    words = rf"{name} has parts .* call prepare\(student, teacher\) with tensors of one batch bef"
    with pytest.raises(ValueError, match=words):
        CRITERIA[name]()(*maps())


@EACH
def test_prepared_again_it_keeps_its_parts(name):
    criterion, student, teacher = made(name)
    before = list(criterion.parameters())
    state = {k: v.clone() for k, v in criterion.state_dict().items()}
    criterion.prepare(2 * student, teacher)
    assert all(a is b for a, b in zip(before, criterion.parameters(), strict=True))
    assert all(torch.equal(v, state[k]) for k, v in criterion.state_dict().items())


@EACH
def test_gradients_reach_the_student_and_every_part_but_never_the_teacher(name):
    criterion, student, teacher = made(name)
    teacher.requires_grad_(name == "FT")
    criterion(student.requires_grad_(), teacher).backward()
    for tensor in (student, *criterion.parameters()):
        assert tensor.grad.isfinite().all() and tensor.grad.any()
    assert teacher.grad is None


@EACH
@pytest.mark.parametrize("training", [True, False])
def test_gradient_of_the_parts(name, training):
    criterion, student, teacher = made(name, batch=3, side=2, dtype=torch.float64)
    if name == "OFD":
        criterion.seen = None
    criterion.double().train(training)
    # FT's other parts learn from a part of the value; its own test looks at that.
    trained = [n for n, _ in criterion.named_parameters() if name != "FT" or "translator" in n]
    tensors = tuple(criterion.get_parameter(n).detach().requires_grad_() for n in trained)

    def loss(*parameters):
        given = dict(zip(trained, parameters, strict=True))
        # A copy: running statistics must not move between two calls.
        return torch.func.functional_call(copy.deepcopy(criterion), given, (student, teacher))

    assert torch.autograd.gradcheck(loss, tensors, atol=1e-4, rtol=1e-3)


@EACH
def test_a_mask_is_dropping_samples_while_training_too(name):
    criterion, student, teacher = made(name)
    other = copy.deepcopy(criterion)
    keep = torch.tensor([True, False, True, True, False, True])
    expected = other(student[keep], teacher[keep])
    expected.backward()
    student[~keep], teacher[~keep] = torch.nan, torch.nan
    loss = criterion(student, teacher, keep)
    loss.backward()
    assert_close(loss, expected)
    for one, two in zip(criterion.parameters(), other.parameters(), strict=True):
        assert_close(one.grad, two.grad)
    for one, two in zip(criterion.buffers(), other.buffers(), strict=True):
        assert_close(one, two)


@EACH
def test_a_mask_of_another_shape_is_refused(name):
    criterion, student, teacher = made(name)
    with pytest.raises(ValueError, match=r"one entry per value, shape \(6,\), got \(6, 4\)"):
        criterion(student, teacher, torch.ones(6, 4, dtype=torch.bool))


@EACH
def test_nothing_moves_where_nothing_is_learnt(name):
    criterion, student, teacher = made(name)
    state = {k: v.clone() for k, v in criterion.state_dict().items()}
    with torch.no_grad():
        criterion(student, teacher)
    criterion.eval()(student, teacher)
    criterion.train()(student, teacher, torch.zeros(6, dtype=torch.bool))
    assert all(torch.equal(v, state[k]) for k, v in criterion.state_dict().items())


@EACH
def test_parts_built_in_evaluation_are_in_evaluation(name):
    criterion = CRITERIA[name]().eval()
    criterion.prepare(*maps())
    assert not any(m.training for m in (criterion, getattr(criterion, "connector", criterion)))


@EACH
def test_one_value_per_channel_has_no_variance_and_a_finite_gradient(name):
    criterion, student, teacher = made(name, batch=1, side=1)
    loss = criterion(student.requires_grad_(), teacher)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@EACH
def test_a_checkpoint_holds_the_parts(name):
    criterion, student, teacher = made(name)
    criterion(student, teacher)
    again = CRITERIA[name]()
    again.prepare(student, teacher)
    again.load_state_dict(criterion.state_dict())
    assert_close(again.eval()(student, teacher), criterion.eval()(student, teacher))


@EACH
def test_a_term_gives_each_pair_of_layers_its_own_parts_and_trains_them(name):
    sources = {"student": "student.hidden_states[*]", "teacher": "teacher.hidden_states[*]"}
    term = Term(CRITERIA[name](), sources)
    found = {
        Source.parse(sources["student"]): [maps(channels=(c, 5))[0] for c in (2, 3)],
        Source.parse(sources["teacher"]): [maps(channels=(2, c))[1] for c in (4, 5)],
    }
    objective = Objective({"mine": term})
    objective.prepare(found, NO_LAYERS)
    values = term._singles(found, NO_LAYERS)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    before = objective(values)["loss"].detach()
    for _ in range(20):
        optimizer.zero_grad()
        objective(values)["loss"].backward()
        assert all(p.grad.any() for p in objective.parameters())
        optimizer.step()
    assert objective(values)["loss"] < before
