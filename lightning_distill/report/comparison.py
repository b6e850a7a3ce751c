"""Teacher, student without a teacher, and distilled student, side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from .cost_lines import cost_lines
from .row import Row
from .table import table_of

# Columns in which any table can be measured.
WIDEST = 1000
ROLES = ("student", "teacher", "baseline", "control")


@dataclass
class Comparison:
    """The end of a run.

    Attributes:
        metric: the name, in the rows' metrics, that decides.
        higher_is_better: of that metric.
        student: the distilled student.
        teacher: the teacher.
        baseline: the same student trained without the teacher on the same budget.
        max_drop: how far the student may be below the teacher.
        relative: whether that is a share of the teacher's value, or in the metric's units.
        facts: further lines for the report, by heading.
        control: the same student taught with the teacher's answers to other rows.
        origin: how the run was made, by heading: the command, versions, the data's fingerprint.
        curves: by the name of each training its stages: how many steps were made before it, and
            where its `metrics.csv` lies within the run.
        weights: by the same names the weights of terms, but for those that change.
        monitor: the name of what the best weights are chosen by, as in `val/accuracy`.
        mode: `max` or `min`, what is better of it.
    """

    metric: str
    higher_is_better: bool
    student: Row
    teacher: Row | None = None
    baseline: Row | None = None
    max_drop: float | None = None
    relative: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)
    control: Row | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    monitor: str = ""
    mode: str = "max"

    @classmethod
    def load(cls, path: Path) -> "Comparison":
        """What `report.json` holds."""
        content = json.loads(path.read_text(encoding="utf-8"))
        # A run that is older than some of them lacks these.
        known: dict[str, Any] = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        for name in ROLES:
            row = known.get(name)
            known[name] = None if row is None else Row(**row)
        curves = known.get("curves", {}).items()
        known["curves"] = {name: [tuple(stage) for stage in own] for name, own in curves}
        return cls(**known)

    def value(self, row: Row) -> float:
        """The deciding metric of a row."""
        return row.metrics[self.metric]

    @property
    def _measures_teacher(self) -> bool:
        return self.teacher is not None and self.metric in self.teacher.metrics

    @property
    def monitor_title(self) -> str:
        """What a row's `validation` is called in tables."""
        return f"{self.monitor.removeprefix('val/') or 'the best'} on the validation rows"

    @property
    def gap_closed(self) -> float | None:
        """Share of the gap between baseline and teacher that the student closes.

        `None` without both of them, or if the teacher is not better than the baseline, or is not
        measured by this metric, as by its agreement with itself.
        """
        if self.teacher is None or self.baseline is None or not self._measures_teacher:
            return None
        sign = 1 if self.higher_is_better else -1
        gap = sign * (self.value(self.teacher) - self.value(self.baseline))
        gain = sign * (self.value(self.student) - self.value(self.baseline))
        return gain / gap if gap > 0 else None

    def retained(self, row: Row) -> float | None:
        """What share of the teacher's metric a student has; `None` of one where less is better."""
        if self.teacher is None or not self._measures_teacher or not self.higher_is_better:
            return None
        of_teacher = self.value(self.teacher)
        return None if row is self.teacher or of_teacher <= 0 else self.value(row) / of_teacher

    @property
    def drop(self) -> float | None:
        """How far the student is below the teacher; negative if it is above."""
        if self.teacher is None or not self._measures_teacher:
            return None
        sign = 1 if self.higher_is_better else -1
        drop = sign * (self.value(self.teacher) - self.value(self.student))
        if self.relative and self.value(self.teacher) != 0:
            drop /= abs(self.value(self.teacher))
        return drop

    def verdict(self) -> list[str]:
        """What the figures say, in sentences."""
        lines = []
        name = self.metric
        if self.baseline is not None:
            sign = 1 if self.higher_is_better else -1
            gain = sign * (self.value(self.student) - self.value(self.baseline))
            if gain > 0:
                lines.append(f"The teacher's help is worth {gain:.4f} {name} in this run.")
            elif gain < 0:
                lines.append(
                    f"Distillation did not help in this run: {name} is {-gain:.4f} worse than "
                    "that of the student alone."
                )
            else:
                lines.append(f"Distillation made no difference to {name} in this run.")
            if self.gap_closed is not None and self.gap_closed < 0:
                lines.append(f"That is {-self.gap_closed:.0%} of the gap to the teacher.")
            elif self.gap_closed is not None:
                lines.append(f"It closes {self.gap_closed:.0%} of the gap to the teacher.")
            elif self._measures_teacher:
                lines.append("The teacher is no better than the student alone: no gap to close.")
        if self.control is not None:
            sign = 1 if self.higher_is_better else -1
            gain = sign * (self.value(self.student) - self.value(self.control))
            lines.append(
                "With the teacher's answers to other rows the student has "
                f"{self.value(self.control):.4f} {name}: what the answers say of each row is "
                f"worth {gain:.4f}."
            )
        if self.drop is not None and self.max_drop is not None:
            unit = "of the teacher's value" if self.relative else "absolute"
            shown = f"{self.drop:.1%}" if self.relative else f"{self.drop:.4f}"
            limit = f"{self.max_drop:.1%}" if self.relative else f"{self.max_drop:.4f}"
            within = "within" if self.drop <= self.max_drop else "NOT within"
            lines.append(
                f"The student is {within} max_metric_drop: it drops {shown} ({unit}; "
                f"allowed {limit})."
            )
        if self.baseline is None:
            lines.append("One run is one sample: repeat with -m seed=1,2,3 before you believe it.")
        else:
            lines.append(
                "One run is one sample: the same command with job=compare job.seeds=5 says whether "
                "the teacher helps."
            )
        return lines

    @property
    def rows(self) -> list[Row]:
        """The models that there are, the distilled student last."""
        rows = (self.teacher, self.baseline, self.control, self.student)
        return [row for row in rows if row is not None]

    def _of_costs(self) -> list[str]:
        """The table of what each model costs; no lines where nothing of it was measured."""
        costs = cost_lines(self.rows)
        if not costs:
            return []
        heads = ["where it is used", *(row.name for row in self.rows)]
        lines = ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        return [*lines, *("| " + " | ".join(line) + " |" for line in costs)]

    def _of_parts(self) -> list[str]:
        """The table of what the metric is made of; no lines where it is one."""
        names = sorted({name for row in self.rows for name in row.parts})
        if not names:
            return []
        heads = [f"{self.metric} of", *(row.name for row in self.rows)]
        lines = ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for name in names:
            values = [row.parts.get(name) for row in self.rows]
            shown = ["" if value is None else f"{value:.4f}" for value in values]
            lines.append("| " + " | ".join([name, *shown]) + " |")
        return lines

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The heads of the table, and a line of text for each model."""
        rows = self.rows
        others = [m for m in self.student.metrics if m != self.metric]
        heads = ["", "parameters", "size MB", "latency ms", self.metric, *others]
        with_agreement = any(row.agreement is not None for row in rows)
        heads += ["agreement"] if with_agreement else []
        heads += ["gap closed"] if self.gap_closed is not None else []
        cells = []
        for row in rows:
            latency = "" if row.latency_ms is None else f"{row.latency_ms:.2f}"
            line = [row.name, f"{row.parameters:,}", f"{row.size_mb:.2f}", latency]
            for metric in (self.metric, *others):
                value = row.metrics.get(metric)
                line.append("" if value is None else f"{value:.4f}")
            if with_agreement:
                line.append("" if row.agreement is None else f"{row.agreement:.4f}")
            if self.gap_closed is not None:
                line.append(f"{self.gap_closed:.0%}" if row is self.student else "")
            cells.append(line)
        return heads, cells

    def interval_line(self) -> str:
        """Where the metric that decides may lie for other test rows; empty if it is not known."""
        known = [
            (row.name, row.intervals[self.metric])
            for row in self.rows
            if self.metric in row.intervals
        ]
        if not known:
            return ""
        each = ", ".join(f"{name} {low:.4f}–{high:.4f}" for name, (low, high) in known)
        return f"95 % intervals of {self.metric} over test rows: {each}."

    def show(self) -> None:
        """Print the table and what it says."""
        heads, cells = self.cells()
        title = f"On {self.facts.get('test rows', 'the')} test rows"
        console = Console()
        # Narrow heads, so that it fits into 80 columns.
        narrow = [head.replace(" ", "\n") for head in heads]
        table = table_of(title, narrow, cells)
        if Console(width=WIDEST).measure(table).maximum > console.width:
            # A line for each figure, a column for each model.
            heads, *cells = [list(line) for line in zip(heads, *cells, strict=True)]
            table = table_of(title, heads, cells)
        console.print(table)
        for sentence in self.verdict():
            console.print(sentence, highlight=False)

    def save(self, directory: Path) -> None:
        """Write `report.json` and `report.md`."""
        heads, cells = self.cells()
        lines = ["# Report", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        lines += ["| " + " | ".join(line) + " |" for line in cells]
        curves = ["![curves](curves.png)", ""] if (directory / "curves.png").is_file() else []
        intervals = [self.interval_line()] if self.interval_line() else []
        lines += ["", *self.verdict(), *intervals, "", *curves]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        lines += [*self._of_costs(), *self._of_parts()]
        lines += ["", *(f"- {name}: `{text}`" for name, text in self.origin.items())]
        (directory / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (directory / "report.json").write_text(
            json.dumps(
                {**asdict(self), "gap_closed": self.gap_closed, "drop": self.drop}, indent=2
            ),
            encoding="utf-8",
        )
