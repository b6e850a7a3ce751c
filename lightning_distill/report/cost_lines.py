"""What each model costs where it is used, in words and figures."""

from collections.abc import Sequence

from .measure import FIGURES, ROWS
from .row import Row

# By the names of the figures: what each is called, and how it is shown.
SHOWN = {
    "flops": ("MFLOPs of one row", 1e-6, ",.2f"),
    "latency_ms": ("latency of one row, median, ms", 1, ".2f"),
    "latency_p95_ms": ("latency of one row, 95th percentile, ms", 1, ".2f"),
    "latency_32_ms": (f"latency of {ROWS} rows, median, ms", 1, ",.2f"),
    "latency_32_p95_ms": (f"latency of {ROWS} rows, 95th percentile, ms", 1, ",.2f"),
    "memory_32_mb": (f"peak memory of {ROWS} rows, MB", 1, ",.1f"),
}
UNKNOWN = "not measured"


def cost_lines(models: Sequence[Row]) -> list[list[str]]:
    """A line for each figure: its name, and a cell for each model.

    The cell of a figure that was not measured says why; one that nothing is known of has no line.
    The last line says how many rows a second each model answers in batches.

    Args:
        models: the rows of a comparison.
    """
    lines = []
    for name in FIGURES:
        title, unit, how = SHOWN[name]
        values = [model.costs[name] for model in models]
        reasons = [model.missing.get(name, UNKNOWN) for model in models]
        known = any(value is not None for value in values)
        if known or any(name in model.missing for model in models):
            cells = [
                why if value is None else format(value * unit, how)
                for value, why in zip(values, reasons, strict=True)
            ]
            lines.append([title, *cells])
    times = [model.costs["latency_32_ms"] for model in models]
    if any(times):
        cells = ["" if not time else f"{1000 * ROWS / time:,.0f}" for time in times]
        lines.append([f"rows a second, {ROWS} at once", *cells])
    return lines
