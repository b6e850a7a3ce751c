"""How often student and teacher predict the same."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from ..tasks import Classification, Task, task_named


class Agreement(Metric):
    """Share of samples for which student and teacher predict the same, from 0 to 1.

    With several classes the largest logit decides, with independent labels the sign of each
    (all must agree). Of numbers (regression) this is the share whose difference is at most
    `tolerance`. "Does knowledge distillation really work?", Stanton et al., 2021, calls it top-1
    agreement, and shows that accuracy can rise without it.

    Args:
        task: a [`Task`][lightning_distill.tasks.Task], or the name of one: `classification`,
            `multi_label`, `regression`, ... By default that of the module that measures it, and
            a classification where there is none.
        tolerance: largest difference, in label units, that counts as equal in regression.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    needs_teacher = True

    def __init__(self, task: str | Task | None = None, tolerance: float = 0.5):
        super().__init__()
        self.task = None if task is None else task_named(task)
        self.tolerance = tolerance
        self.equal: Tensor
        self.total: Tensor
        self.add_state("equal", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, student: Float[Tensor, "..."], teacher: Float[Tensor, "..."]) -> None:
        """Count one batch of predictions."""
        if student.shape != teacher.shape:
            raise ValueError(
                f"student and teacher must predict the same classes, got shapes "
                f"{tuple(student.shape)} and {tuple(teacher.shape)}."
            )
        equal = (self.task or Classification()).agree(student, teacher, self.tolerance)
        self.equal += equal.sum()
        self.total += equal.numel()

    def compute(self) -> Tensor:
        """The share over all batches and ranks."""
        return self.equal / self.total
