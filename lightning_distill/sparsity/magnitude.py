"""The smallest weights become 0."""

from torch import Tensor

from .sparsity import Sparsity


class MagnitudeSparsity(Sparsity):
    """Weights with the smallest absolute value become 0; a weight that is 0 stays so.

    References:
        Han et al., *Learning both Weights and Connections for Efficient Neural Networks*, 2015,
        https://arxiv.org/abs/1506.02626; the schedule is that of Zhu and Gupta, 2017.
    """

    def scores(self, path: str, weight: Tensor) -> Tensor:
        """The absolute value."""
        return weight.abs()
