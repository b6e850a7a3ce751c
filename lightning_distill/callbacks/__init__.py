"""Lightning callbacks of this library."""

from .best_checkpoint import BestCheckpoint
from .exact_resuming import ExactResuming
from .finite_loss import FiniteLoss
from .last_checkpoint import LastCheckpoint
from .sealed_checkpoints import SealedCheckpointIO
from .step_profile import StepProfile, StepTimes

__all__ = [
    "BestCheckpoint",
    "ExactResuming",
    "FiniteLoss",
    "LastCheckpoint",
    "SealedCheckpointIO",
    "StepProfile",
    "StepTimes",
]
