"""Criteria around other criteria: what is asked of them is asked of what they wrap."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ._plain import as_criterion, ATTRIBUTES
from .criterion import Criterion, Part


class Wrapper(Criterion, ABC):
    """A criterion that changes the arguments, or the mean, of another one.

    Args:
        criterion: what it wraps; a [`Criterion`][], or any module or function.
    """

    def __init__(self, criterion: Any):
        super().__init__()
        self.criterion = as_criterion(criterion)
        for name in ATTRIBUTES:
            setattr(self, name, getattr(self.criterion, name))

    @abstractmethod
    def around(self, criterion: Criterion) -> "Wrapper":
        """The same wrapper around another criterion."""

    def counted(self, **inputs: Any) -> Tensor | None:
        """What counts in the criterion."""
        return self.criterion.counted(**inputs)

    def counted_labels(self, **inputs: Any) -> Tensor | None:
        """What counts in the criterion's cross-entropy."""
        return self.criterion.counted_labels(**inputs)

    def parts(self) -> Mapping[str, Part]:
        """Those of the criterion, each within this wrapper."""
        return {
            name: Part(self.around(part.criterion), part.weight, part.inputs)
            for name, part in self.criterion.parts().items()
        }

    @property
    def builds_parts(self) -> bool:
        """Whether the criterion does."""
        return self.criterion.builds_parts

    def observe(self, value: Float[Tensor, ""]) -> None:
        """The criterion's."""
        self.criterion.observe(value)

    def logged(self) -> dict[str, Tensor]:
        """The criterion's."""
        return self.criterion.logged()

    @property
    def softened_at(self) -> float | None:
        """The criterion's."""
        return self.criterion.softened_at

    @property
    def takes_mask(self) -> bool:
        """Whether the criterion does."""
        return self.criterion.takes_mask
