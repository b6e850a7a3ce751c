"""What a run shows when it ends."""

from ..models.size import parameter_count, size_mb
from .comparison import Comparison, Row
from .curves import draw_curves
from .layer_similarity import save_layer_similarity
from .measure import latency_ms
from .profile import draw_profile, Profile
from .samples import Sample, write_samples

__all__ = [
    "Comparison",
    "Profile",
    "Row",
    "Sample",
    "draw_curves",
    "draw_profile",
    "latency_ms",
    "parameter_count",
    "save_layer_similarity",
    "size_mb",
    "write_samples",
]
