"""What models predict for each test row, as a run has kept it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from safetensors import safe_open

from ..metrics.share_interval import share_interval

# Of a training, in its folder.
PREDICTIONS = "predictions.safetensors"
# A share is a mean of what is right and what is wrong; sums differ in their order alone.
TOLERANCE = 1e-5
BINS = 15


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model.

    Attributes:
        row: the numbers of the rows in the data, `(rows,)`.
        label: their classes, `(rows,)`.
        predicted: the classes that the model predicts, `(rows,)`.
        confidence: the probabilities that it gives them, `(rows,)`.
        classes: their names, or nothing.
    """

    row: Int64[np.ndarray, " rows"]
    label: Int64[np.ndarray, " rows"]
    predicted: Int64[np.ndarray, " rows"]
    confidence: Float[np.ndarray, " rows"]
    classes: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path, of: str = "student") -> "Predictions | None":
        """Those of a training; `None` if it has kept none.

        Args:
            folder: of the training.
            of: `student` or `teacher`.
        """
        path = folder / PREDICTIONS
        if not path.is_file():
            return None
        names = ("row", "label", "predicted", "confidence")
        with safe_open(path, "np") as file:
            if f"{of}.row" not in file.keys():  # noqa: SIM118 - it is no mapping
                return None
            classes = json.loads((file.metadata() or {}).get("classes", "[]"))
            values = {name: file.get_tensor(f"{of}.{name}") for name in names}
            return cls(**values, classes=tuple(classes))

    @property
    def right(self) -> Float[np.ndarray, " rows"]:
        """1 where the prediction is the label, 0 elsewhere."""
        return (self.predicted == self.label).astype(np.float64)

    def is_of_same_rows(self, other: "Predictions") -> bool:
        """Whether another model predicts the same rows, as far as their numbers and labels tell."""
        pairs = ((self.row, other.row), (self.label, other.label))
        return all(np.array_equal(mine, its) for mine, its in pairs)

    def is_mean_of_right(self, value: float) -> bool:
        """Whether a metric is the share of rows that are right: then rows may be drawn anew."""
        return len(self.row) > 0 and abs(float(self.right.mean()) - value) < TOLERANCE

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share that is right (Wilson, 1927), for these few rows."""
        return share_interval(float(self.right.mean()), len(self.right))

    def interval_of(self, value: float) -> tuple[float, float] | None:
        """The 95 % interval of a metric, for these few rows; `None` if it is none of those known.

        Of the share that is right as in [`interval`][]; of macro F1 and of Matthews' correlation a
        bootstrap over rows. Which of them a metric is, is told by its value.

        Args:
            value: of the metric on these rows.
        """
        if self.is_mean_of_right(value):
            return self.interval()
        for statistic in CLASS_STATISTICS:
            if abs(statistic(*self._counts()) - value) < TOLERANCE:
                return self._bootstrap(statistic)
        return None

    def _counts(self, weights: Float[np.ndarray, " rows"] | None = None) -> Any:
        """Of each class how many rows are right, are predicted as it, and are of it."""
        most = int(max(self.label.max(), self.predicted.max())) + 1
        weights = np.ones(len(self.row)) if weights is None else weights
        right = np.bincount(self.label, self.right * weights, most)
        return right, *(np.bincount(x, weights, most) for x in (self.predicted, self.label))

    def _bootstrap(
        self, statistic: Callable[..., float], draws: int = 1000, seed: int = 0
    ) -> tuple[float, float] | None:
        draw, n = np.random.default_rng(seed), len(self.row)
        found = [
            statistic(
                *self._counts(np.bincount(draw.integers(n, size=n), minlength=n).astype(np.float64))
            )
            for _ in range(draws)
        ]
        low, high = map(float, np.quantile(found, [0.025, 0.975]))
        # Of a model that always says the same, drawing rows anew shows nothing.
        return (low, high) if low < high else None

    def agreement_interval(
        self, teacher: "Predictions", value: float
    ) -> tuple[float, float] | None:
        """The 95 % interval of the share of rows on which a teacher predicts the same.

        Args:
            teacher: of the same rows.
            value: of the metric; `None` is returned if that is another share.
        """
        if not self.is_of_same_rows(teacher):
            return None
        same = float((self.predicted == teacher.predicted).mean())
        return share_interval(same, len(self.row)) if abs(same - value) < TOLERANCE else None

    @property
    def calibration_error(self) -> float:
        """How far confidence is from the share that is right, in 15 bins (Guo et al., 2017)."""
        bins = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        gaps = np.bincount(bins, weights=self.right - self.confidence, minlength=BINS)
        return float(np.abs(gaps).sum() / len(self.row))

    def name(self, number: int) -> str:
        """What a class is called."""
        return self.classes[number] if number < len(self.classes) else str(number)


def _macro_f1(
    right: Float[np.ndarray, " classes"],
    predicted: Float[np.ndarray, " classes"],
    label: Float[np.ndarray, " classes"],
) -> float:
    """The mean over the classes that there are; 0 to 1."""
    both = predicted + label
    return float((2 * right[both > 0] / both[both > 0]).mean())


def _matthews(
    right: Float[np.ndarray, " classes"],
    predicted: Float[np.ndarray, " classes"],
    label: Float[np.ndarray, " classes"],
) -> float:
    """Matthews' correlation for several classes (Gorodkin, 2004); 0 where it is not defined."""
    rows = label.sum()
    above = right.sum() * rows - predicted @ label
    below = (rows**2 - predicted @ predicted) * (rows**2 - label @ label)
    return float(above / math.sqrt(below)) if below > 0 else 0.0


CLASS_STATISTICS = (_macro_f1, _matthews)


def intervals_of(
    metrics: Mapping[str, float], own: Predictions | None, teacher: Predictions | None = None
) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of those metrics that follow from predicted classes, by name.

    Args:
        metrics: of a model, by name.
        own: its predictions; without them there is no interval.
        teacher: those of its teacher, for agreements.
    """
    found = {}
    for name, value in metrics.items() if own is not None and len(own.row) else ():
        assert own is not None
        interval = own.interval_of(value)
        if interval is None and teacher is not None:
            interval = own.agreement_interval(teacher, value)
        if interval is not None:
            found[name] = interval
    return found


def interval_over_rows(
    differences: Float[np.ndarray, "seeds rows"] | Sequence[Float[np.ndarray, " _"]],
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """A bootstrap interval of a mean difference, over seeds and over test rows.

    Seeds are drawn with replacement, and rows too: the same ones for all seeds where these are
    measured on the same rows, and for each seed its own elsewhere. So it holds for other test rows
    of the same kind, which an interval over seeds alone does not say.

    Args:
        differences: of each seed, how much better one student was on each row; an array if the
            rows are the same for all.
        draws: how often.
        level: of the interval.
        seed: of the draws.

    References:
        Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993.
    """
    draw = np.random.default_rng(seed)
    count = len(differences)
    means = np.empty(draws)
    for i in range(draws):
        seeds = draw.integers(count, size=count)
        if isinstance(differences, np.ndarray):
            rows = draw.integers(differences.shape[1], size=differences.shape[1])
            weights = np.bincount(seeds, minlength=count) / count
            means[i] = float(weights @ differences[:, rows].mean(1))
        else:
            own = [differences[s] for s in seeds]
            means[i] = np.mean([d[draw.integers(len(d), size=len(d))].mean() for d in own])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
