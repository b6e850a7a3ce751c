"""Lightning callbacks of this library."""

from .finite_loss import FiniteLoss

__all__ = ["FiniteLoss"]
