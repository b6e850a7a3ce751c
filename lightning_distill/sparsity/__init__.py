"""Weights that become 0 while a student learns."""

from .kept import KeptSparsity
from .magnitude import MagnitudeSparsity
from .movement import MovementSparsity
from .sparsity import Sparsity

__all__ = ["KeptSparsity", "MagnitudeSparsity", "MovementSparsity", "Sparsity"]
