"""One model of a comparison, and all that is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .measure import FIGURES

# What the agreement with the teacher is called among metrics.
AGREEMENT = "agreement"
# Times of a machine that does nothing else differ by a few tenths.
DISTURBED = 3


@dataclass
class Row:
    """One model of the comparison.

    Attributes:
        name: what it is called in the table.
        parameters: how many.
        size_mb: on disk, in megabytes.
        latency_ms: median of one forward with one row, in milliseconds; like the figures that end
            in `_ms` or `_mb` and `flops` as [`Costs`][] has it, `None` if it was not measured.
        metrics: on the test rows, by name.
        agreement: share of test rows on which it predicts what the teacher predicts.
        parts: what the metric that decides is made of, by name, such as the kinds of entities.
        validation: on the validation rows, what the best weights were chosen by; `None` if nothing
            was monitored.
        validation_mode: `max` or `min`, what is better of it.
        flops: floating-point operations of one row.
        latency_p95_ms: 95th percentile of one row.
        latency_32_ms: median of a batch of 32 rows.
        latency_32_p95_ms: 95th percentile of such a batch.
        memory_32_mb: the most that weights and activations of such a batch take.
        missing: why a figure was not measured, by its name.
        fingerprint: of its weights, SHA-256 in hex; empty if nobody knows.
        intervals: by the names of metrics, and of `agreement`, both ends of their 95 % intervals
            over test rows, for those that have one.
    """

    name: str
    parameters: int
    size_mb: float
    latency_ms: float | None
    metrics: Mapping[str, float]
    agreement: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    validation: float | None = None
    validation_mode: str = ""
    flops: int | None = None
    latency_p95_ms: float | None = None
    latency_32_ms: float | None = None
    latency_32_p95_ms: float | None = None
    memory_32_mb: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def was_disturbed(self) -> bool:
        """Whether times of one row differ so much that the machine must have been busy."""
        if self.latency_ms is None or self.latency_p95_ms is None:
            return False
        return self.latency_p95_ms > DISTURBED * self.latency_ms

    @property
    def costs(self) -> dict[str, float | None]:
        """What [`Costs`][] has, by the names of the figures."""
        return {name: getattr(self, name) for name in FIGURES}
