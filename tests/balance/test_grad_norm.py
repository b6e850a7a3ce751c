import pytest
import torch
from torch.testing import assert_close

from lightning_distill.balance import GradNorm


def factors(balance, problem):
    balance(problem.losses(), problem.weights, problem.parameters)
    return torch.tensor(list(balance.logged().values()))


def test_gradients_have_the_sizes_that_weights_and_rates_set(problem):
    balance = GradNorm(alpha=1.5, momentum=0.0)
    balance.prepare(["a", "b", "c"])
    first = problem.losses()
    factors(balance, problem)
    problem.weight.data += 0.3
    losses = problem.losses()
    found = factors(balance, problem)
    sizes = torch.stack([problem.gradients(loss).norm() for loss in losses.values()])
    rates = torch.stack([(losses[n] / first[n]).detach() for n in losses])
    weights = torch.tensor(list(problem.weights.values()))
    wanted = weights * (rates / rates.mean()) ** 1.5
    pulls = found * sizes
    assert_close(pulls / pulls.sum(), wanted / wanted.sum())
    assert_close(pulls.sum(), (weights * sizes).sum())


def test_without_alpha_equal_weights_give_equal_pulls(problem):
    balance = GradNorm(alpha=0.0)
    balance.prepare(["a", "b", "c"])
    problem.weights = dict.fromkeys("abc", 1.0)
    total = balance(problem.losses(), problem.weights, problem.parameters)
    found = torch.tensor(list(balance.logged().values()))
    losses = problem.losses()
    pulls = found * torch.stack([problem.gradients(loss).norm() for loss in losses.values()])
    assert_close(pulls, pulls.mean().expand(3))
    # What is minimised is the terms times these factors, which have no gradient themselves.
    each = torch.stack([problem.gradients(loss) for loss in losses.values()])
    expected = found @ each
    assert_close(problem.gradients(total), expected)


def test_one_term_alone_keeps_its_weight(problem):
    balance = GradNorm()
    balance.prepare(["a"])
    losses = {"a": problem.losses()["a"]}
    assert_close(balance(losses, {"a": 0.7}, problem.parameters), 0.7 * losses["a"])


def test_factors_move_by_the_momentum_and_lie_in_the_checkpoint(problem):
    def after(momentum):
        balance = GradNorm(momentum=momentum)
        balance.prepare(["a", "b", "c"])
        first = factors(balance, problem)
        problem.weight.data += 0.3
        second = factors(balance, problem)
        problem.weight.data -= 0.3
        return balance, first, second

    _, first, solution = after(0.0)
    balance, _, moved = after(0.75)
    assert_close(moved, 0.75 * first + 0.25 * solution)
    again = GradNorm(momentum=0.75)
    again.prepare(["a", "b", "c"])
    again.load_state_dict(balance.state_dict())
    assert_close(factors(again, problem), factors(balance, problem))


def test_evaluation_changes_nothing(problem):
    balance = GradNorm()
    balance.prepare(["a", "b", "c"])
    balance.eval()(problem.losses(), problem.weights, problem.parameters)
    assert balance.factors.isnan().all() and balance.first.isnan().all()


def test_gradients_are_measured_where_shared_says(problem):
    balance = GradNorm(alpha=0.0, momentum=0.0, shared="linear.b")
    balance.prepare(["a", "b", "c"])
    found = factors(balance, problem)
    sizes = torch.stack([problem.gradients(x)[-1].abs() for x in problem.losses().values()])
    pulls = found * sizes
    assert_close(pulls / pulls[0], torch.tensor([1.0, 0.5, 2.0]))


def test_a_term_without_gradient_keeps_its_weight(problem):
    balance = GradNorm()
    balance.prepare(["a", "b"])
    losses = {"a": problem.losses()["a"], "b": 0.0 * problem.losses()["b"]}
    total = balance(losses, {"a": 1.0, "b": 0.5}, problem.parameters)
    assert total.isfinite() and balance.logged()["b"] == 0.5


def test_a_name_that_no_parameter_has_is_refused(problem):
    balance = GradNorm(shared="liner")
    balance.prepare(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"`shared` of GradNorm is 'liner', .*Nearest: linear"):
        balance(problem.losses(), problem.weights, problem.parameters)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"momentum": 1.0}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        GradNorm(**options)
