"""Temperatures that depend on the logits: learned, or different for each sample.

A number or a schedule needs nothing from here. These are given to a criterion in their place, as in
`SoftTarget(temperature=FLSW(4.0))`; they are called on the logits, and return one temperature for
all samples or one for each.
"""

from .ctkd import CTKD
from .cwsm import CWSM
from .flsw import FLSW

__all__ = ["CTKD", "CWSM", "FLSW"]
