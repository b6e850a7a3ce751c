"""What a run shows when it ends."""

from ..models.size import parameter_count, size_mb
from .class_tables import differing, predictions_of
from .comparison import Comparison
from .curves import draw_curves
from .layer_similarity import save_layer_similarity
from .measure import Costs, latency_ms, measure_costs
from .page import write_page
from .paired import Paired
from .predictions import interval_over_rows, PREDICTIONS, Predictions
from .profile import draw_profile, Profile
from .row import Row
from .row_texts import write_row_texts
from .samples import Sample, write_samples
from .search_result import SearchResult, Tried
from .seed_runs import best_rates, Run, run_of, settings_of
from .seeds import SeedComparison

__all__ = [
    "PREDICTIONS",
    "Comparison",
    "Costs",
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
    "differing",
    "draw_curves",
    "draw_profile",
    "interval_over_rows",
    "latency_ms",
    "measure_costs",
    "parameter_count",
    "predictions_of",
    "run_of",
    "save_layer_similarity",
    "settings_of",
    "size_mb",
    "write_page",
    "write_row_texts",
    "write_samples",
]
