"""A student as it is used after its training: in integers, where it was trained for these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..models.fake_quantization import in_integers, quantization_in_training
from ..report import parameter_count, size_mb
from ..training.module import DistillationModule


@dataclass(frozen=True)
class StudentAsUsed:
    """What is measured of a student.

    Attributes:
        model: the student itself, or a copy of it in integers.
        forward: runs it on a batch, as its module runs the student.
    """

    model: nn.Module
    forward: Callable[[Any], Any]

    @property
    def parameters(self) -> int:
        """How many there are; scales of integers are none."""
        return parameter_count(self.model)

    @property
    def size_mb(self) -> float:
        """What they take in memory."""
        return size_mb(self.model)


def student_as_used(module: DistillationModule) -> StudentAsUsed:
    """The student of a module; that is in eval mode, and stays as it is.

    Args:
        module: before, in or after its training.
    """
    student = module.student
    used = student if quantization_in_training(student) is None else in_integers(student)

    def forward(batch: Any) -> Any:
        module.student = used
        try:
            return module.student_forward(batch)
        finally:
            module.student = student

    return StudentAsUsed(used, forward)
