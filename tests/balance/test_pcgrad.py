import pytest
import torch
import torch.multiprocessing as mp
from opposed import Problem
from processes import in_two_processes
from torch.testing import assert_close

from lightning_distill.balance import GradNorm, PCGrad
from lightning_distill.balance.pcgrad import surgery


def projected(gradients, seed):
    """Algorithm 1 of the paper, on the gradients themselves."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(gradients[0])
    for i, own in enumerate(gradients):
        left = own.clone()
        for j in torch.randperm(len(gradients), generator=generator).tolist():
            if j != i and left @ gradients[j] < 0:
                left -= (left @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += left
    return total


def test_the_student_follows_the_sum_of_the_projected_gradients(problem):
    balance = PCGrad()
    balance.prepare(["a", "b", "c"])
    for seed in range(3):
        losses = problem.losses()
        each = [problem.weights[n] * problem.gradients(loss) for n, loss in losses.items()]
        assert torch.stack(each)[0] @ each[1] < 0
        total = balance(losses, problem.weights, problem.parameters)
        assert_close(problem.gradients(total), projected(each, seed))


@pytest.mark.parametrize("terms", [2, 5])
def test_it_agrees_with_the_algorithm_on_random_gradients(terms):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        gradients = torch.randn(terms, 7, generator=generator, dtype=torch.float64)
        found = surgery(gradients @ gradients.T, seed) @ gradients
        assert_close(found, projected(list(gradients), seed))


def test_two_terms_that_agree_are_just_added(problem):
    balance = PCGrad()
    balance.prepare(["a", "c"])
    losses = {n: loss for n, loss in problem.losses().items() if n != "b"}
    losses["c"] = losses["a"] * 2
    total = balance(losses, problem.weights, problem.parameters)
    assert_close(total, losses["a"] + 2 * losses["c"])
    assert balance.logged() == {"a": 1.0, "c": 1.0}


def test_what_two_opposed_terms_follow_hurts_neither(problem):
    balance = PCGrad()
    balance.prepare(["a", "b"])
    losses = {n: loss for n, loss in problem.losses().items() if n != "c"}
    total = balance(losses, problem.weights, problem.parameters)
    step = problem.gradients(total)
    for loss in losses.values():
        assert step @ problem.gradients(loss) >= -1e-5


def test_a_term_without_gradient_changes_nothing(problem):
    balance = PCGrad()
    balance.prepare(["a", "b"])
    losses = {"a": problem.losses()["a"], "b": 0.0 * problem.losses()["b"]}
    total = balance(losses, problem.weights, problem.parameters)
    assert_close(problem.gradients(total), problem.gradients(losses["a"]))


def test_steps_are_counted_in_training_only_and_lie_in_the_checkpoint(problem):
    balance = PCGrad()
    balance.prepare(["a", "b"])
    balance(problem.losses(), problem.weights, problem.parameters)
    balance.eval()(problem.losses(), problem.weights, problem.parameters)
    assert balance.state_dict()["step"] == 1


def _worker(rank, store, build, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    problem, balance = Problem(), build()
    balance.prepare(["a", "b", "c"])
    losses = problem.losses(slice(4 * rank, 4 * rank + 4))
    balance(losses, problem.weights, problem.parameters).backward()
    for p in problem.parameters.values():
        torch.distributed.all_reduce(p.grad)
    results[rank] = [(p.grad / 2).tolist() for p in problem.parameters.values()]
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("build", [PCGrad, GradNorm])
def test_two_processes_are_one_with_all_rows(build, problem, tmp_path):
    balance = build()
    balance.prepare(["a", "b", "c"])
    balance(problem.losses(), problem.weights, problem.parameters).backward()
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), build, results))
        for found in dict(results).values():
            for gradient, p in zip(found, problem.parameters.values(), strict=True):
                assert_close(torch.tensor(gradient), p.grad)
