"""What a run shows when it ends."""

from ..models.size import parameter_count, size_mb
from .comparison import Comparison, Row
from .curves import draw_curves
from .layer_similarity import save_layer_similarity
from .measure import latency_ms
from .page import write_page
from .paired import Paired
from .predictions import interval_over_rows, PREDICTIONS, Predictions
from .profile import draw_profile, Profile
from .samples import Sample, write_samples
from .search_result import SearchResult, Tried
from .seed_runs import best_rates, Run, run_of, settings_of
from .seeds import SeedComparison

__all__ = [
    "PREDICTIONS",
    "Comparison",
    "Paired",
    "Predictions",
    "Profile",
    "Row",
    "Run",
    "Sample",
    "SearchResult",
    "SeedComparison",
    "Tried",
    "best_rates",
    "draw_curves",
    "draw_profile",
    "interval_over_rows",
    "latency_ms",
    "parameter_count",
    "run_of",
    "save_layer_similarity",
    "settings_of",
    "size_mb",
    "write_page",
    "write_samples",
]
