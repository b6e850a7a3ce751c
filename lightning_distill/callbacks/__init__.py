"""Lightning callbacks of this library."""

from .finite_loss import FiniteLoss
from .step_profile import StepProfile, StepTimes

__all__ = ["FiniteLoss", "StepProfile", "StepTimes"]
