"""What a teacher brings over several seeds, in a table, a picture and a word."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from .paired import DOES_NOT, HELPS, holm, NOT_SHOWN
from .seed_plot import draw_seeds
from .seed_runs import COSTS, Setting
from .table import table_of


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
                    "interval_over_rows": setting.row_interval(),
                    "effect": paired.effect,
                    "p": paired.p,
                    "p_corrected": p,
                    "verdict": paired.word(p, self.alpha, self.least_gain),
                    "seeds_needed": paired.seeds_needed(alpha=self.alpha),
                    **self._of_control(setting),
                    "learning_rates": dict(setting.runs[0].rates) or None,
                    "costs": {
                        of: {name: setting.cost(of, name) for name in COSTS}
                        for of in ("teacher", "student")
                    },
                }
            )
        return found

    def _of_control(self, setting: Setting) -> dict[str, Any]:
        beside = setting.beside_control
        if beside is None:
            return {"control": None}
        return {
            "control": [run.control for run in setting.runs],
            "gain_on_control": beside.mean,
            "p_of_control": beside.p,
            # Both must be shown, so nothing is to be corrected for.
            "above_control": beside.word(beside.p, self.alpha) == HELPS,
        }

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
            found.append(said + _said_of_control(line) + _said_of_rows(line) + _said_of_rates(line))
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
        higher = self.settings[0].runs[0].higher_is_better
        content = {
            "metric": self.metric,
            "higher_is_better": higher,
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
        draw_seeds(self.settings, self.metric, higher, directory / "compare.png")

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        lines, several = self.lines(), len(self.settings) > 1
        control = any(line["control"] for line in lines)
        heads = ["", "seeds", "teacher", "alone", *(["taught other rows"] if control else [])]
        heads += ["distilled", "gain", "95 % interval", "p"]
        heads += ["p corrected"] if several else []
        heads += ["verdict"]
        cells = []
        for line in lines:
            interval = line["interval"]
            shown = "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
            cells.append(
                [
                    line["setting"],
                    str(len(line["seeds"])),
                    _spread([v for v in line["teacher"] if v is not None]),
                    _spread(line["alone"]),
                    *([_spread(line["control"] or [])] if control else []),
                    _spread(line["distilled"]),
                    f"{line['gain']:+.4f}",
                    shown,
                    _chance(line["p"]),
                    *([_chance(line["p_corrected"])] if several else []),
                    line["verdict"],
                ]
            )
        return heads, cells


def _said_of_control(line: Mapping[str, Any]) -> str:
    if line["verdict"] != HELPS or not line["control"]:
        return ""
    figures = f"{line['gain_on_control']:+.4f}, p {_chance(line['p_of_control'])}"
    if line["above_control"]:
        return (
            " It is what the teacher says of each row: the student is better than one that was "
            f"taught the answers to other rows ({figures})."
        )
    return (
        " But it is not shown to be better than one that was taught the answers to other rows "
        f"({figures}), so the help may not be what the teacher says of each row."
    )


def _said_of_rows(line: Mapping[str, Any]) -> str:
    interval = line["interval_over_rows"]
    if interval is None:
        return ""
    shown = f"{interval[0]:+.4f} to {interval[1]:+.4f}"
    said = f" With other test rows in mind too, the gain is {shown} (95 %, bootstrap)."
    if line["verdict"] == HELPS and interval[0] <= 0:
        said += " So on other rows of the same kind there may be none: measure on more test rows."
    return said


def _said_of_rates(line: Mapping[str, Any]) -> str:
    rates = line["learning_rates"]
    if not rates:
        return ""
    listed = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    return f" Learning rates, the best on the validation rows: {listed}."


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


def _chance(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"
