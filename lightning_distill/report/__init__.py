"""What a run shows when it ends."""

from ..models.size import parameter_count, size_mb
from .class_tables import differing, predictions_of
from .comparison import Comparison
from .curves import draw_curves
from .layer_similarity import save_layer_similarity, save_trained_layers
from .measure import Costs, latency_ms, measure_costs
from .page import write_page
from .paired import Paired
from .predictions import interval_over_rows, intervals_of, PREDICTIONS, Predictions
from .profile import draw_profile, Profile
from .row import AGREEMENT, Row
from .row_texts import write_row_texts
from .samples import Sample, write_samples
from .search_result import SearchResult, Tried
from .seed_runs import best_rates, Run, run_of, settings_of
from .seeds import SeedComparison
from .trained_layers import trained_layers, TrainedLayers

__all__ = [
    "AGREEMENT",
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
    "TrainedLayers",
    "Tried",
    "best_rates",
    "differing",
    "draw_curves",
    "draw_profile",
    "interval_over_rows",
    "intervals_of",
    "latency_ms",
    "measure_costs",
    "parameter_count",
    "predictions_of",
    "run_of",
    "save_layer_similarity",
    "save_trained_layers",
    "settings_of",
    "size_mb",
    "trained_layers",
    "write_page",
    "write_row_texts",
    "write_samples",
]
