"""What is minimised: named terms, each a criterion with its inputs and its weight."""

from .intermediate_layers import IntermediateLayers
from .maps import Maps
from .objective import Objective
from .term import Term

__all__ = ["IntermediateLayers", "Maps", "Objective", "Term"]
