"""All figures of the models of a run side by side, with intervals where these are known."""

from collections.abc import Callable, Mapping

from .comparison import Comparison
from .cost_lines import cost_lines
from .predictions import Predictions
from .row import AGREEMENT, Row

INTERVAL = "its 95 % interval"
BUSY = (
    "The machine was busy while times were measured: some runs took several times as long as "
    "others. Do not compare models by these times; resume=RUN measures again when it is quiet."
)
NOTE = (
    "An interval says how far another set of test rows of the same kind may bring the figure: of "
    "shares of rows that of Wilson (1927), of other metrics a bootstrap over rows."
)
CALIBRATION = (
    "The calibration error says how far confidence is from the share that is right, in 15 bins "
    "(Guo et al., 2017); 0 is best."
)


def side_by_side(
    comparison: Comparison, predictions: Mapping[str, Predictions]
) -> tuple[list[str], list[list[str]], str]:
    """A column for each model and a line for each figure.

    Args:
        comparison: of the run.
        predictions: of its models, as `predictions_of` finds them.

    Returns:
        The heads, the lines, and what is said of them.
    """
    rows = comparison.rows
    known = {id(getattr(comparison, role)): one for role, one in predictions.items()}

    def line(title: str, figure: Callable[[Row], float | None], how: str = ".4f") -> list[str]:
        values = [figure(row) for row in rows]
        return [title, *("" if value is None else format(value, how) for value in values)]

    def intervals(name: str) -> list[str]:
        """A line for the intervals of a metric."""
        found = [row.intervals.get(name) for row in rows]
        return [INTERVAL, *("" if one is None else f"{one[0]:.4f}–{one[1]:.4f}" for one in found)]

    def gap(row: Row) -> float | None:
        return comparison.gap_closed if row is comparison.student else None

    lines, without = [], []
    others = [m for m in comparison.student.metrics if m != comparison.metric]
    for metric in (comparison.metric, *others):
        lines.append(line(metric, lambda row, m=metric: row.metrics.get(m)))  # type: ignore[misc]
        found = intervals(metric)
        lines.append(found)
        if not any(found[1:]):
            without.append(metric)
        if metric == comparison.metric:
            lines.append(line(f"share of the teacher's {metric}", comparison.retained, ".1%"))
            lines.append(line("gap closed", gap, ".0%"))
    lines.append(line("agreement with the teacher", lambda row: row.agreement))
    if comparison.metric != AGREEMENT:
        lines.append(intervals(AGREEMENT))
    lines.append(
        line(
            "calibration error",
            lambda row: known[id(row)].calibration_error if id(row) in known else None,
        )
    )
    lines.append(line(comparison.monitor_title, lambda row: row.validation))
    lines.append(line("parameters", lambda row: row.parameters, ",.0f"))
    lines.append(line("on disk, MB", lambda row: row.size_mb, ",.2f"))
    # A line without a figure says nothing.
    lines = [cells for cells in lines if any(cells[1:])] + cost_lines(rows)
    notes = [NOTE] if any(row.intervals for row in rows) else []
    notes += [CALIBRATION] if predictions else []
    if without:
        notes.append(
            f"No interval is known of {', '.join(without)}: what single rows add to it was not "
            "kept, or does not add up to it."
        )
    notes += [BUSY] if any(row.was_disturbed for row in rows) else []
    return ["", *(row.name for row in rows)], lines, " ".join(notes)
