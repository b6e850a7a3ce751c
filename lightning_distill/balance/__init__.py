"""How much each term of an objective counts, when its weight alone should not decide.

A balance is a module that an [`Objective`][lightning_distill.Objective] calls on the terms' losses
and weights in training, and that returns what is minimised. [`DOT`][] is an optimizer instead.
"""

from .dot import DOT
from .grad_norm import GradNorm
from .pcgrad import PCGrad
from .uncertainty import Uncertainty

__all__ = ["DOT", "GradNorm", "PCGrad", "Uncertainty"]
