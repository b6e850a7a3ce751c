import pytest
import torch
from torch.testing import assert_close

from lightning_distill.balance import Uncertainty


def test_it_starts_as_the_weighted_sum(problem):
    balance = Uncertainty()
    balance.prepare(["a", "b", "c"])
    losses = problem.losses()
    expected = sum(problem.weights[n] * loss for n, loss in losses.items())
    assert_close(balance(losses, problem.weights, problem.parameters), expected)


def test_it_agrees_with_the_definition(problem):
    balance = Uncertainty()
    balance.prepare(["a", "b", "c"])
    sigma = torch.tensor([0.5, 1.5, 3.0])
    balance.log_variance.data.copy_((sigma**2).log())
    losses = problem.losses()
    expected = sum(
        problem.weights[n] * (losses[n] / sigma[i] ** 2 + sigma[i].log())
        for i, n in enumerate("abc")
    )
    assert_close(balance(losses, problem.weights, problem.parameters), expected)
    assert_close(list(balance.logged().values()), (sigma**-2).tolist())


def test_variances_go_to_twice_the_loss():
    balance = Uncertainty()
    balance.prepare(["a", "b"])
    losses, weights = {"a": torch.tensor(0.3), "b": torch.tensor(4.0)}, {"a": 1.0, "b": 2.0}
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        balance(losses, weights, {}).backward()
        optimizer.step()
    assert_close(balance.log_variance.exp(), torch.tensor([0.6, 8.0]), rtol=1e-2, atol=0.0)


def test_a_term_that_falls_to_zero_counts_at_most_as_said_and_can_come_back():
    balance = Uncertainty(largest=10.0)
    balance.prepare(["a"])
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)

    def steps(loss, count):
        for _ in range(count):
            optimizer.zero_grad()
            balance({"a": torch.tensor(loss)}, {"a": 1.0}, {}).backward()
            optimizer.step()
        balance({"a": torch.tensor(loss)}, {"a": 1.0}, {})
        return balance.logged()["a"]

    assert steps(0.0, 50) == pytest.approx(10.0)
    assert steps(2.0, 60) == pytest.approx(0.25, rel=0.05)


def test_a_largest_factor_below_the_first_is_refused():
    with pytest.raises(ValueError, match="`largest` must be 1 or more, got 0.5; 1 is the factor"):
        Uncertainty(0.5)
