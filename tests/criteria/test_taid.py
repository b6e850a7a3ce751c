import math

import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import soft_target, TAID, taid


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    p = (0.3 * teacher + 0.7 * student).softmax(-1)
    q = student.softmax(-1)
    assert_close(taid(student, teacher, 0.3), (p * (p / q).log()).sum(-1))


def test_it_goes_from_nothing_to_forward_kl(logits):
    assert_close(taid(*logits, 0.0), torch.zeros(16, dtype=torch.float64), atol=1e-12, rtol=0.0)
    assert_close(taid(*logits, 1.0), soft_target(*logits, 1.0))


def test_the_intermediate_teacher_has_no_gradient(logits):
    student = logits[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(taid(student, logits[1], 0.4).sum(), student)
    p = (0.4 * logits[1] + 0.6 * logits[0]).softmax(-1)
    assert_close(gradient, logits[0].softmax(-1) - p)


def test_the_share_runs_ahead_as_the_authors_compute_it(logits):
    """Algorithm 1, followed by hand over losses that fall and rise."""
    student, teacher = logits
    criterion = TAID(alpha=0.4, step=0.05, momentum=0.9)
    now, trend, previous = 0.4, 0.0, None
    for scale in (1.0, 0.7, 0.5, 0.6, 0.1):
        s = (teacher + scale * (student - teacher)).requires_grad_()
        loss = criterion(s, teacher).item()
        criterion.observe(torch.tensor(loss))
        expected = float(taid(s.detach(), teacher, now).mean())
        assert loss == pytest.approx(expected, rel=1e-5)
        if previous is not None:
            trend = 0.9 * trend + 0.1 * (previous - loss) / previous
            now = now + 0.05 / (1 + math.exp(-trend)) * (1 - now)
        previous = loss
        assert float(criterion.position) == pytest.approx(now if now > 0.4 else 0.0, rel=1e-4)
    assert 0.4 < now < 1


def test_evaluation_does_not_move_it_and_the_checkpoint_holds_it(logits):
    criterion = TAID(step=0.1)
    for _ in range(3):
        criterion.observe(criterion(logits[0].clone().requires_grad_(), logits[1]).detach())
    state = {k: v.clone() for k, v in criterion.state_dict().items()}
    assert set(state) == {"position", "trend", "previous"} and state["position"] > 0.4
    # A call alone moves nothing: what it heard last is the mean of all processes.
    criterion(*logits)
    criterion.eval()
    criterion.observe(criterion(*logits))
    assert all(torch.equal(v, state[k]) for k, v in criterion.state_dict().items())


def test_a_schedule_is_the_least_share(logits):
    criterion = TAID(alpha=lambda: 0.9, step=0.0)
    assert_close(criterion(*logits), taid(*logits, 0.9).mean())
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 1, got 2"):
        TAID(alpha=2.0)
