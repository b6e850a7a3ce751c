"""Lightning callbacks of this library, and its logger."""

from .best_checkpoint import BestCheckpoint
from .csv_logger import CSVLogger
from .exact_resuming import ExactResuming
from .finite_loss import FiniteLoss
from .graceful_stop import GracefulStop
from .last_checkpoint import LastCheckpoint
from .last_validation import LastValidation
from .progress_bar import ProgressBar
from .sealed_checkpoints import SealedCheckpointIO
from .step_profile import StepProfile, StepTimes

__all__ = [
    "BestCheckpoint",
    "CSVLogger",
    "ExactResuming",
    "FiniteLoss",
    "GracefulStop",
    "LastCheckpoint",
    "LastValidation",
    "ProgressBar",
    "SealedCheckpointIO",
    "StepProfile",
    "StepTimes",
]
