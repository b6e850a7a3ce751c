"""What a run shows when it ends."""

from ..models.size import parameter_count, size_mb
from .comparison import Comparison, Row
from .curves import draw_curves
from .measure import latency_ms
from .profile import draw_profile, Profile
from .samples import Sample, write_samples
from .search_result import SearchResult, Tried

__all__ = [
    "Comparison",
    "Profile",
    "Row",
    "Sample",
    "SearchResult",
    "Tried",
    "draw_curves",
    "draw_profile",
    "latency_ms",
    "parameter_count",
    "size_mb",
    "write_samples",
]
