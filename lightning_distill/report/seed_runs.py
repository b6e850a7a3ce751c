"""Runs with the same settings and other seeds, side by side."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .paired import Paired
from .predictions import interval_over_rows, Predictions

# Of a model, with their units.
COSTS = {"parameters": "parameters", "latency_ms": "latency of one row, ms"}


@dataclass(frozen=True)
class Run:
    """What counts of a finished run.

    Attributes:
        folder: its directory.
        seed: of it.
        setting: its configuration, without the seed.
        metric: the name of the metric that decides.
        higher_is_better: of that metric.
        alone: the metric of the student without a teacher, on the test rows.
        distilled: the same of the student with one.
        teacher: the same of the teacher; `None` if it was not measured.
        test_rows: how many there are, as the report says it.
        control: the metric of the student that was taught the answers to other rows, if there is
            one.
        validation: how good each was on the validation rows, by `alone`, `distilled` and `control`;
            more is better. What is not known is left out.
        rates: the learning rates by the same names, where each is the best of several.
        predictions: of `alone` and `distilled` on the test rows, where the metric is the share that
            is right.
        costs: of `teacher` and `student`, how many parameters it has, and the median of one forward
            with one row in milliseconds; what is not known is left out.
    """

    folder: str
    seed: int
    setting: Mapping[str, Any]
    metric: str
    higher_is_better: bool
    alone: float
    distilled: float
    teacher: float | None
    test_rows: str
    control: float | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def row_gains(self) -> Float[np.ndarray, " rows"] | None:
        """How much better the distilled student was on each test row; `None` if nobody knows."""
        alone, distilled = map(self.predictions.get, ("alone", "distilled"))
        if alone is None or distilled is None or not alone.is_of_same_rows(distilled):
            return None
        return distilled.right - alone.right


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds alone.

    Attributes:
        name: what sets it apart from the others.
        runs: in the order of their seeds.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def paired(self) -> Paired:
        """How much better each distilled student was than the one alone with the same seed."""
        sign = 1 if self.runs[0].higher_is_better else -1
        return Paired(tuple(sign * (run.distilled - run.alone) for run in self.runs))

    def row_interval(self) -> tuple[float, float] | None:
        """A bootstrap interval of the gain over seeds and test rows; `None` if nobody knows."""
        gains = [run.row_gains for run in self.runs]
        if len(gains) < 2 or any(one is None for one in gains):
            return None
        first, *others = (run.predictions["alone"] for run in self.runs)
        same = all(first.is_of_same_rows(other) for other in others)
        return interval_over_rows(np.stack(gains) if same else gains)  # type: ignore[arg-type]

    def cost(self, of: str, name: str) -> float | None:
        """The mean over the runs; `None` if nobody knows.

        Args:
            of: `teacher` or `student`.
            name: one of `COSTS`.
        """
        found = [run.costs[of][name] for run in self.runs if name in run.costs.get(of, {})]
        return statistics.fmean(found) if found else None

    @property
    def beside_control(self) -> Paired | None:
        """How much better it was than the one that was taught the answers to other rows."""
        sign = 1 if self.runs[0].higher_is_better else -1
        differences = [
            sign * (run.distilled - run.control) for run in self.runs if run.control is not None
        ]
        return Paired(tuple(differences)) if len(differences) == len(self.runs) else None


def settings_of(runs: Sequence[Run]) -> tuple[Setting, ...]:
    """Runs by their configuration, without the seed, in the order in which they are given.

    Raises:
        ValueError: for runs that cannot be compared, saying which.
    """
    for name in ("metric", "test_rows"):
        values = {getattr(run, name): run.folder for run in runs}
        if len(values) > 1:
            listed = "; ".join(f"{value} in {folder}" for value, folder in values.items())
            raise ValueError(
                f"These runs have different {name.replace('_', ' ')} and cannot be compared: "
                f"{listed}. Name runs on the same data in job.runs."
            )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.setting, sort_keys=True), []).append(run)
    settings = [own[0].setting for own in groups.values()]
    found = []
    for own in groups.values():
        by_seed: dict[int, Run] = {}
        for run in own:
            if run.seed in by_seed:
                raise ValueError(
                    f"{by_seed[run.seed].folder} and {run.folder} have the same settings and the "
                    f"same seed {run.seed}: the same run twice is no more evidence. Leave one out."
                )
            by_seed[run.seed] = run
        ordered = tuple(by_seed[seed] for seed in sorted(by_seed))
        found.append(Setting(" ".join(_own(own[0].setting, settings)), ordered))
    return tuple(found)


def _own(setting: Mapping[str, Any], others: Sequence[Any], where: str = "") -> Iterator[str]:
    """What sets a configuration apart from others, as it would be typed.

    Where the choices of a group differ, as those of criteria, these are named and not their values.
    """
    for key in sorted({key for other in others for key in other}):
        value, values = setting.get(key), [other.get(key) for other in others]
        if all(other == value for other in values):
            continue
        if not all(isinstance(other, Mapping) for other in values):
            yield f"{where}{key}={value}"
        elif len({str(other.get("_target_")) for other in values}) > 1:
            yield f"{where}{key}={str(value['_target_']).rpartition('.')[2]}"  # type: ignore[index]
        elif len({tuple(sorted(other)) for other in values}) > 1:
            yield f"{where}{key}=[{','.join(value)}]"  # type: ignore[arg-type]
        else:
            yield from _own(value, values, f"{where}{key}.")  # type: ignore[arg-type]


def run_of(folder: Path, seed: int, setting: Mapping[str, Any]) -> Run:
    """What counts of a finished run.

    Args:
        folder: its directory, which holds `report.json`.
        seed: of it.
        setting: its configuration, without the seed.

    Raises:
        ValueError: if it trained no student alone.
    """
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    metric, student, teacher = report["metric"], report["student"], report["teacher"]
    # A run that is older than the control has none.
    baseline, control = report["baseline"], report.get("control")
    if baseline is None:
        raise ValueError(
            f"{folder} trained no student alone, so there is nothing to compare with: run it with "
            "baseline=true and a teacher."
        )
    return Run(
        str(folder),
        seed,
        setting,
        metric,
        report["higher_is_better"],
        baseline["metrics"][metric],
        student["metrics"][metric],
        None if teacher is None else teacher["metrics"].get(metric),
        str(report["facts"].get("test rows", "")),
        None if control is None else control["metrics"][metric],
        {
            name: row["validation"] * (1 if row["validation_mode"] == "max" else -1)
            for name, row in (("alone", baseline), ("distilled", student), ("control", control))
            if row is not None and row.get("validation") is not None
        },
        predictions={
            name: found
            for name, row, own in (
                ("alone", baseline, folder / "baseline"),
                ("distilled", student, folder),
            )
            if (found := Predictions.load(own)) is not None
            and found.is_mean_of_right(row["metrics"][metric])
        },
        costs={
            name: {cost: row[cost] for cost in COSTS if row.get(cost) is not None}
            for name, row in (("teacher", teacher), ("student", student))
            if row is not None
        },
    )


def best_rates(runs: Mapping[float, Sequence[Run]]) -> list[Run]:
    """Each student with the learning rate that suits it best, which is one for all seeds.

    Args:
        runs: with the same seeds in the same order, by learning rate.

    Returns:
        A run for each seed, of students that may be of several runs.

    Raises:
        ValueError: if nothing was measured on the validation rows.
    """
    rates: dict[str, float] = {}
    for name in ("alone", "distilled", "control"):
        means = {
            rate: statistics.fmean(run.validation[name] for run in own)
            for rate, own in runs.items()
            if all(name in run.validation for run in own)
        }
        if means:
            rates[name] = max(means, key=lambda rate: means[rate])
    if not {"alone", "distilled"} <= rates.keys():
        raise ValueError(
            "Learning rates are chosen on the validation rows, and nothing was measured there. Let "
            "`monitor` name a metric of them, or leave job.learning_rates out."
        )
    found = []
    for i, run in enumerate(runs[rates["distilled"]]):
        control = runs[rates["control"]][i].control if "control" in rates else None
        other = runs[rates["alone"]][i]
        kept = {
            name: own.predictions[name]
            for name, own in (("alone", other), ("distilled", run))
            if name in own.predictions
        }
        changed = replace(run, alone=other.alone, control=control, rates=rates, predictions=kept)
        found.append(changed)
    return found
