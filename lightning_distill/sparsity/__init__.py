"""Weights that become 0 while a student learns."""

from .kept import KeptSparsity
from .magnitude import MagnitudeSparsity
from .movement import MovementSparsity
from .sparsity import Sparsity, zeros_in_place

__all__ = ["KeptSparsity", "MagnitudeSparsity", "MovementSparsity", "Sparsity", "zeros_in_place"]
