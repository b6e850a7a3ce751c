"""The learning rate and the epochs of who has chosen none."""

from dataclasses import dataclass

from torch import nn

from ..models.fake_quantization import quantization_in_training
from ..models.freshness import is_fresh
from ..models.peft_parts import is_adapted
from ..quantization_schemes import SCALES


@dataclass(frozen=True)
class UsualTraining:
    """How a model is trained unless somebody says otherwise.

    Attributes:
        learning_rate: of AdamW, with a warm-up.
        constant_rate: of AdamW, without one.
        epochs: over the data.
        reason: why, as a sentence begins.
    """

    learning_rate: float
    constant_rate: float
    epochs: int
    reason: str


FRESH = UsualTraining(2e-3, 1e-3, 12, "the student starts from fresh weights")
TRAINED = UsualTraining(5e-5, 5e-5, 4, "the student starts from trained weights")
ROUNDED = UsualTraining(1e-5, 1e-5, 4, "only scales of the student's weights are trained")
ADAPTED = UsualTraining(2e-4, 2e-4, 4, "only adapters of the student are trained")


def usual_training(student: nn.Module) -> UsualTraining:
    """What suits a student: trained weights bear only small steps, fresh ones need large ones.

    Args:
        student: as it is before its first step.
    """
    if is_adapted(student):
        return ADAPTED
    how = quantization_in_training(student)
    if how is not None and how.train == SCALES:
        return ROUNDED
    return FRESH if is_fresh(student) else TRAINED
