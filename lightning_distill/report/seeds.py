"""What a teacher brings over several seeds: runs with the same settings, side by side."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from .paired import DOES_NOT, holm, NOT_SHOWN, Paired
from .table import table_of


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


@dataclass(frozen=True)
class SeedComparison:
    """The end of `job=compare`.

    Attributes:
        settings: each with its runs.
        alpha: how often chance may look like help.
        least_gain: the least gain that is worth anything, in units of the metric.
    """

    settings: tuple[Setting, ...]
    alpha: float = 0.05
    least_gain: float = 0.0

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.settings[0].runs[0].metric

    def lines(self) -> list[dict[str, Any]]:
        """The figures of each setting, as `compare.json` holds them."""
        corrected = holm([setting.paired.p for setting in self.settings])
        found = []
        for setting, p in zip(self.settings, corrected, strict=True):
            paired = setting.paired
            found.append(
                {
                    "setting": setting.name,
                    "seeds": [run.seed for run in setting.runs],
                    "runs": [run.folder for run in setting.runs],
                    "teacher": [run.teacher for run in setting.runs],
                    "alone": [run.alone for run in setting.runs],
                    "distilled": [run.distilled for run in setting.runs],
                    "gain": paired.mean,
                    "interval": paired.interval(),
                    "effect": paired.effect,
                    "p": paired.p,
                    "p_corrected": p,
                    "verdict": paired.word(p, self.alpha, self.least_gain),
                    "seeds_needed": paired.seeds_needed(alpha=self.alpha),
                }
            )
        return found

    def sentences(self) -> list[str]:
        """What the figures say, and what would change it."""
        found = []
        for line in self.lines():
            name = f"{line['setting']}: " if line["setting"] else ""
            word, needed = line["verdict"], line["seeds_needed"]
            said = f"{name}The teacher's help is {word}."
            if word != NOT_SHOWN:
                said = f"{name}The teacher {word}."
            seeds = len(line["seeds"])
            if word == NOT_SHOWN and seeds < 2:
                said += " One seed shows nothing: run more, as in -m seed=0,1,2,3,4."
            elif word == NOT_SHOWN and needed is not None:
                said += (
                    f" To find a gain like this one nine times of ten, it takes {needed} seeds; "
                    f"there are {seeds}."
                )
            elif word == DOES_NOT and line["gain"] >= 0:
                said += f" A gain of {self.least_gain:g} is ruled out."
            found.append(said)
        return found

    def show(self) -> None:
        """Print the table and what it says."""
        console = Console()
        heads, cells = self._cells()
        console.print(table_of("On the test rows", heads, cells))
        for sentence in self.sentences():
            console.print(sentence, highlight=False)

    def save(self, directory: Path) -> None:
        """Write `compare.json`, `compare.md` and `compare.png`."""
        content = {
            "metric": self.metric,
            "higher_is_better": self.settings[0].runs[0].higher_is_better,
            "alpha": self.alpha,
            "least_gain": self.least_gain,
            "settings": self.lines(),
        }
        (directory / "compare.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        heads, cells = self._cells()
        lines = ["# Comparison over seeds", "", "| " + " | ".join(heads) + " |"]
        lines += ["|---" * len(heads) + "|", *("| " + " | ".join(line) + " |" for line in cells)]
        lines += ["", *self.sentences(), "", "![each seed](compare.png)", ""]
        lines += ["Runs:", "", *(f"- {run.folder}" for s in self.settings for run in s.runs)]
        (directory / "compare.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._draw(directory / "compare.png")

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        heads = ["", "seeds", "teacher", "alone", "distilled", "gain", "95 % interval", "p"]
        several = len(self.settings) > 1
        heads += ["p corrected"] if several else []
        heads += ["verdict"]
        cells = []
        for line in self.lines():
            interval = line["interval"]
            shown = "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
            cells.append(
                [
                    line["setting"],
                    str(len(line["seeds"])),
                    _spread([v for v in line["teacher"] if v is not None]),
                    _spread(line["alone"]),
                    _spread(line["distilled"]),
                    f"{line['gain']:+.4f}",
                    shown,
                    _chance(line["p"]),
                    *([_chance(line["p_corrected"])] if several else []),
                    line["verdict"],
                ]
            )
        return heads, cells

    def _draw(self, to: Path) -> None:
        count = len(self.settings)
        figure = Figure(figsize=(2.0 + 1.8 * count, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        names = []
        for i, setting in enumerate(self.settings):
            for j, run in enumerate(setting.runs):
                label = "each seed" if i == j == 0 else None
                axes.plot([2.5 * i, 2.5 * i + 1], [run.alone, run.distilled], "o-", color="C0",
                          alpha=0.6, ms=4, label=label)  # fmt: skip
            teachers = [run.teacher for run in setting.runs if run.teacher is not None]
            if teachers:
                axes.hlines(statistics.fmean(teachers), 2.5 * i - 0.2, 2.5 * i + 1.2, color="C1",
                            ls=":", label="teacher" if i == 0 else "")  # fmt: skip
            names += [(2.5 * i, "alone"), (2.5 * i + 1, f"distilled\n{setting.name}")]
        axes.set_xticks([x for x, _ in names], [name for _, name in names])
        axes.tick_params(labelsize=8)
        axes.set_ylabel(self.metric)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
        figure.savefig(to, dpi=120)


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
    metric, baseline, teacher = report["metric"], report["baseline"], report["teacher"]
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
        report["student"]["metrics"][metric],
        None if teacher is None else teacher["metrics"].get(metric),
        str(report["facts"].get("test rows", "")),
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


def _chance(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"
