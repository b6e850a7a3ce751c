"""What a search has found: every student that it tried, in a table, a picture and two files."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from ..sealed import write_whole
from .table import table_of

COMPLETE = "complete"


@dataclass
class Tried:
    """One trial of a search.

    Attributes:
        number: from 0.
        state: `complete`, `pruned` or `failed`.
        params: what it tried, by the keys of the options.
        metric: the best on the validation rows; `None` if it was not measured.
        parameters: how many the student has.
        size_mb: on disk, in megabytes.
        latency_ms: median of one forward with one row, in milliseconds.
        validations: how often it was measured.
        seconds: wall time.
        reason: why it ended early or failed.
        folder: within the run's directory.
        best: whether no other trial beats it in all objectives.
        command: that trains it to the end.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    metric: float | None = None
    parameters: int | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    validations: int = 0
    seconds: float | None = None
    reason: str | None = None
    folder: str = ""
    best: bool = False
    command: str = ""


@dataclass
class SearchResult:
    """All trials of a search.

    Attributes:
        metric: its name.
        higher_is_better: of that metric.
        objectives: `metric`, and `latency`, `size` or `size_mb` if they count too.
        trials: those that ended, in order.
        facts: further values of the file, by name.
    """

    metric: str
    higher_is_better: bool
    objectives: Sequence[str]
    trials: Sequence[Tried]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def front(self) -> list[Tried]:
        """The trials that no other beats, the best metric first, and the smaller of two alike."""
        sign = -1 if self.higher_is_better else 1
        found = [trial for trial in self.trials if trial.best and trial.metric is not None]
        return sorted(found, key=lambda t: (sign * (t.metric or 0.0), t.parameters, t.number))

    def save(self, directory: Path) -> None:
        """Write `search.json` and `search.csv`."""
        whole = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "objectives": list(self.objectives),
            "best": [trial.number for trial in self.front],
            **self.facts,
            "trials": [asdict(trial) for trial in self.trials],
        }
        write_whole(directory / "search.json", json.dumps(whole, indent=2).encode())
        keys = list(dict.fromkeys(key for trial in self.trials for key in trial.params))
        others = [name for name in asdict(Tried(0, "", {})) if name not in ("params", "number")]
        with (directory / "search.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["number", *keys, *others])
            for trial in self.trials:
                values = [trial.params.get(key) for key in keys]
                writer.writerow([trial.number, *values, *(getattr(trial, n) for n in others)])

    def show(self) -> None:
        """Print the trials that no other beats."""
        front = self.front
        keys = list(dict.fromkeys(key for trial in front for key in trial.params))
        heads = ["trial", *keys, self.metric, "parameters", "size MB", "latency ms"]
        cells = [
            [
                str(trial.number),
                *(str(trial.params.get(key, "")) for key in keys),
                f"{trial.metric:.4f}",
                f"{trial.parameters:,}",
                f"{trial.size_mb:.2f}",
                f"{trial.latency_ms:.2f}",
            ]
            for trial in front
        ]
        words = " and ".join(self.metric if n == "metric" else n for n in self.objectives)
        title = f"Not beaten in {words}, of {len(self.trials)} trials"
        # A key in parts, so that the table fits into 80 columns.
        narrow = [head.replace(".", ".\n").replace(" ", "\n") for head in heads]
        Console().print(table_of(title, narrow, cells))

    def draw(self, to: Path) -> None:
        """Draw the metric against size, and against latency and megabytes if they are objectives.

        Args:
            to: the PNG file.
        """
        axes_of = {"parameters": "parameters"}
        if "size_mb" in self.objectives:
            axes_of["size_mb"] = "size (MB)"
        if "latency" in self.objectives:
            axes_of["latency_ms"] = "latency (ms)"
        figure = Figure(figsize=(5.2 * len(axes_of), 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        for i, (name, label) in enumerate(axes_of.items()):
            axes = figure.add_subplot(1, len(axes_of), i + 1)
            for best, title, color in ((False, "others", "0.6"), (True, "not beaten", "C0")):
                shown = [t for t in self._complete if t.best == best]
                points = [(getattr(trial, name), trial.metric) for trial in shown]
                if points:
                    sizes, values = zip(*points, strict=True)
                    axes.scatter(sizes, values, color=color, label=title, s=22)
                for trial, point in zip(shown, points, strict=True):
                    axes.annotate(
                        str(trial.number), point, xytext=(4, 4), textcoords="offset points",
                        fontsize=8, color=color,
                    )  # fmt: skip
            axes.set_xlabel(label, fontsize=8)
            axes.set_title(self.metric, fontsize=10)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25)
            if self._complete:
                axes.legend(fontsize=8, frameon=False)
        figure.savefig(to, dpi=120)

    @property
    def _complete(self) -> list[Tried]:
        return [trial for trial in self.trials if trial.state == COMPLETE]
