"""What a run shows when it ends."""

from .comparison import Comparison, Row
from .curves import draw_curves
from .measure import latency_ms, parameter_count, size_mb

__all__ = ["Comparison", "Row", "draw_curves", "latency_ms", "parameter_count", "size_mb"]
