import importlib.util

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from lightning_distill import Objective, Term
from lightning_distill.criteria import Hint
from lightning_distill.models.source import Source
from lightning_distill.objective.layer_transport import flow, LayerTransport

STUDENT, TEACHER = (
    Source.parse("student.hidden_states[*]"),
    Source.parse("teacher.hidden_states[*]"),
)
INPUTS = {"student": str(STUDENT), "teacher": str(TEACHER)}


def costs(students, teachers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(students, teachers, generator=generator).double()


@pytest.mark.parametrize(("students", "teachers"), [(1, 1), (2, 3), (4, 6), (6, 4), (5, 5)])
def test_with_equal_weights_it_is_the_best_assignment(students, teachers):
    distances = costs(students, teachers)
    # Each layer as often as the other model has layers: then all have the same weight.
    many = np.kron(distances.numpy(), np.ones((teachers, students)))
    rows, columns = linear_sum_assignment(many)
    expected = many[rows, columns].mean()
    found = LayerTransport(students, teachers).eval()(distances)
    assert_close(found, torch.tensor(expected), atol=1e-7, rtol=1e-7)


def test_the_flow_moves_all_weights():
    own, others = torch.tensor([0.7, 0.3]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    found = flow(1e-9 * costs(2, 3), own, others)
    assert (found >= 0).all()
    assert_close(found.sum(1), own)
    assert_close(found.sum(0), others)


def test_the_gradient_is_the_flow():
    distances = costs(2, 3).requires_grad_()
    LayerTransport(2, 3).eval()(distances).backward()
    expected = flow(distances.detach(), torch.full((2,), 1 / 2), torch.full((3,), 1 / 3).double())
    assert_close(distances.grad, expected)


def test_in_training_near_layers_weigh_more():
    distances = torch.tensor([[0.1, 0.2, 0.9], [0.4, 0.6, 0.8]]).double()
    transport = LayerTransport(2, 3, temperature=2.0)
    moved = flow(distances, torch.full((2,), 0.5).double(), torch.full((3,), 1 / 3).double())
    moved = moved * distances
    transport.eval()(distances)
    assert_close(transport.students, torch.full((2,), 0.5))
    transport.train()(distances.requires_grad_())
    for found, unit in (
        (transport.students, moved.sum(1) / 0.5),
        (transport.teachers, moved.sum(0) * 3),
    ):
        shares = np.exp((unit.sum() / unit).detach().numpy() / 2)
        assert_close(found.double(), torch.from_numpy(shares / shares.sum()), atol=1e-6, rtol=1e-5)
    assert transport.students[0] > transport.students[1]
    kept = LayerTransport(2, 3, temperature=None)
    kept(distances)
    assert_close(kept.students, torch.full((2,), 0.5))


def test_layers_that_are_the_same_cost_nothing_and_stay_finite():
    transport = LayerTransport(2, 2)
    distances = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)
    for _ in range(3):
        assert transport(distances) == 0
    assert transport.students.isfinite().all() and transport.students.sum() == pytest.approx(1)
    assert torch.isnan(transport(torch.full((2, 2), float("nan"))))


def test_a_term_compares_each_layer_with_each():
    torch.manual_seed(0)
    students = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(2)]
    teachers = [torch.randn(2, 3, 4) for _ in range(3)]
    objective = Objective({"hint": Term(Hint(), INPUTS, mapping="emd")}).eval()
    objective.prepare({STUDENT: students, TEACHER: teachers}, {"student": [], "teacher": []})
    values = {Source.parse(f"student.hidden_states[{i}]"): x for i, x in enumerate(students)}
    values |= {Source.parse(f"teacher.hidden_states[{i}]"): x for i, x in enumerate(teachers)}
    assert {*objective.sources("student"), *objective.sources("teacher")} == {*values}
    distances = torch.stack(
        [torch.stack([((s - t) ** 2).mean() for t in teachers]) for s in students]
    )
    half, third = torch.full((2,), 1 / 2).double(), torch.full((3,), 1 / 3).double()
    expected = (flow(distances.detach().double(), half, third) * distances).sum()
    assert_close(objective(values)["hint"].double(), expected, atol=1e-6, rtol=1e-6)


def test_one_adapter_serves_all_pairs():
    students = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(2)]
    teachers = [torch.randn(2, 3, 6) for _ in range(3)]
    term = Term(Hint(), INPUTS, mapping="emd", adapter="linear")
    term.prepare({STUDENT: students, TEACHER: teachers}, {"student": [], "teacher": []})
    assert len(list(term.parameters())) == 2


def test_what_goes_with_one_pair_only_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="mapping=emd has none"):
        Term(Hint(), INPUTS, mapping="emd", pair=1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"mapping=emd needs the package scipy.*\[emd\]"):
        Term(Hint(), INPUTS, mapping="emd")
