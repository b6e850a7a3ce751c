"""What a run shows when it ends."""

from .comparison import Comparison, Row
from .curves import draw_curves
from .measure import latency_ms, parameter_count, size_mb
from .profile import draw_profile, Profile

__all__ = [
    "Comparison",
    "Profile",
    "Row",
    "draw_curves",
    "draw_profile",
    "latency_ms",
    "parameter_count",
    "size_mb",
]
