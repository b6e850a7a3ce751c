"""Every layer of the student learns of every layer of the teacher, the nearest ones the most."""

import numpy as np
import torch
from jaxtyping import Float
from torch import nn, Tensor

from ..extras import check_extra


class LayerTransport(nn.Module):
    r"""The earth mover's distance between all layers of a student and all of a teacher.

    $$\sum_{ij} F_{ij} D_{ij}, \quad F = \arg\min_F \sum_{ij} F_{ij} D_{ij}, \quad
      \sum_j F_{ij} = w_i, \; \sum_i F_{ij} = v_j$$

    where $D_{ij}$ is how far layer $i$ of the student is from layer $j$ of the teacher. The flow
    $F$ is found anew for each batch, and no gradient goes through it. The weights $w$ and $v$ sum
    to 1 and are equal at first. After each batch in training a layer that is near to the other
    model weighs more: $w_i \propto \exp(\sum_k c_k / (\tau c_i))$ with the cost
    $c_i = \sum_j F_{ij} D_{ij} / w_i$, and the same for $v$. A checkpoint keeps the weights. Of
    several processes those of the first count, and each finds the flow of its own rows.

    Args:
        students: how many layers the student has.
        teachers: how many the teacher has.
        temperature: $\tau$; `None` leaves the weights equal.

    Raises:
        ValueError: if scipy, which finds the flow, is not installed.

    References:
        Li et al., *BERT-EMD: Many-to-Many Layer Mapping for BERT Compression with Earth Mover's
        Distance*, 2020, https://arxiv.org/abs/2010.06133, eq. 5 to 15.
    """

    students: Tensor
    teachers: Tensor

    def __init__(self, students: int, teachers: int, temperature: float | None = 1.0):
        super().__init__()
        check_extra("mapping=emd", "emd", "scipy")
        self.temperature = temperature
        for name, count in (("students", students), ("teachers", teachers)):
            self.register_buffer(name, torch.full((count,), 1 / count))

    def forward(self, distances: Float[Tensor, "students teachers"]) -> Float[Tensor, ""]:
        """The distance of all layers together."""
        costs = distances.detach().double().cpu()
        own, others = (_shares(getattr(self, name)) for name in ("students", "teachers"))
        # What is not finite is told by the loss.
        found = flow(costs, own, others) if costs.isfinite().all() else torch.outer(own, others)
        if self.training and torch.is_grad_enabled() and costs.isfinite().all():
            self._weigh(found * costs, own, others)
        return (found.to(distances) * distances).sum()

    def _weigh(self, moved: Tensor, own: Tensor, others: Tensor) -> None:
        if self.temperature is None:
            return
        for weights, name, dim in ((own, "students", 1), (others, "teachers", 0)):
            # A layer that is the same in both models has no cost; its weight stays finite.
            costs = (moved.sum(dim) / weights.clamp(min=1e-12)).clamp(min=1e-12)
            nearness = (costs.sum() / costs).clamp(max=1e3)
            getattr(self, name).copy_((nearness / self.temperature).softmax(0))

    def extra_repr(self) -> str:  # noqa: D102
        return f"{len(self.students)} to {len(self.teachers)} layers"


def _shares(weights: Tensor) -> Tensor:
    """Weights that sum to 1, whatever the precision that the module has been given."""
    weights = weights.double().cpu()
    return weights / weights.sum()


def flow(
    costs: Float[Tensor, "students teachers"],
    students: Float[Tensor, " students"],
    teachers: Float[Tensor, " teachers"],
) -> Float[Tensor, "students teachers"]:
    """The cheapest way to move the weights of the student's layers to those of the teacher's.

    Args:
        costs: of each pair, finite; on the CPU, in float64.
        students: weights that sum to 1.
        teachers: weights that sum to 1.
    """
    from scipy.optimize import linprog

    rows, columns = costs.shape
    leave = np.kron(np.eye(rows), np.ones(columns))
    # The weights of the last layer follow from the others.
    arrive = np.kron(np.ones(rows), np.eye(columns))[:-1]
    largest = max(float(costs.abs().max()), 1e-20)
    found = linprog(
        (costs / largest).flatten().numpy(),
        A_eq=np.concatenate([leave, arrive]),
        b_eq=torch.cat([students, teachers[:-1]]).numpy(),
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"No flow between the layers was found: {found.message}")
    return torch.from_numpy(found.x).view(rows, columns)
