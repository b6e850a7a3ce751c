"""Where the time of a run's steps went, as a table, as a picture, and what to do about it."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..callbacks.step_profile import PHASES, StepTimes

# Advice that is one setting is given where it can save a tenth of a step: the same run measured
# twice differs by a few hundredths, and what is less cannot be seen.
ONE_SETTING = 0.10
# A cache is another job, and room on the disk; for that a run must become a third faster.
CACHE = 0.25
# A step whose models are so small, or batches so few, that a third of it is bookkeeping, which
# hardly depends on either.
BOOKKEEPING = 0.33


@dataclass
class Profile:
    """The times of a run's steps, with what of its settings decides which advice fits.

    Attributes:
        times: as measured.
        num_workers: of the data loader, `None` if not known.
        length_bucketing: whether rows of similar length share a batch, `None` if not known.
        cacheable: whether there is a teacher whose answers could be kept on disk, and are not.
        cores: of this machine, as far as this process may use them.
    """

    times: StepTimes
    num_workers: int | None = None
    length_bucketing: bool | None = None
    cacheable: bool = False
    cores: int = 0

    def __post_init__(self) -> None:
        if self.cores == 0:
            allowed = getattr(os, "sched_getaffinity", None)
            self.cores = len(allowed(0)) if allowed else os.cpu_count() or 1

    def advice(self) -> list[str]:
        """What would make the steps faster, by the share that it can save; maybe nothing."""
        found = [self._on_teacher(), self._on_data(), self._on_padding(), self._on_bookkeeping()]
        return [sentence for sentence in found if sentence is not None]

    def _on_teacher(self) -> str | None:
        share = self.times.share("teacher")
        if not self.cacheable or share < CACHE:
            return None
        return (
            f"teacher {share:.0%} of the time: `lightning-distill job=cache ...` and then "
            "`teacher=cached` computes it once."
        )

    def _on_data(self) -> str | None:
        share = self.times.share("data")
        if share < ONE_SETTING:
            return None
        start = f"data {share:.0%} of the time"
        workers = self.num_workers or 0
        if workers >= self.cores or self.cores == 1:
            return (
                f"{start}: more than the {self.cores} cores here can prepare in time; make a row "
                "cheaper to read."
            )
        # Workers make batches while a step computes, and must not take longer than it does.
        ratio = (workers or share) / max(1 - share, 0.01)
        # One to spare, for not every batch takes the same time.
        wanted = min(max(math.ceil(round(ratio, 3)), workers) + 1, self.cores)
        setting = "num_workers" if self.num_workers is None else "data.num_workers"
        shared = ", which share the cores with the training" if self.times.device == "cpu" else ""
        return f"{start}: {setting}={wanted}{shared}."

    def _on_padding(self) -> str | None:
        padding = self.times.padding_share("student", "teacher")
        if padding is None or self.length_bucketing:
            return None
        # Only models compute on padding, about as much as on any token.
        computing = sum(self.times.share(phase) for phase in ("student", "teacher", "backward"))
        if padding * computing < ONE_SETTING:
            return None
        what = "data.length_bucketing=true"
        if self.length_bucketing is None:
            what = "give rows of similar length one batch (lightning_distill.data)"
        return f"padding {padding:.0%} of the tokens: {what}."

    def _on_bookkeeping(self) -> str | None:
        share = self.times.share("other")
        if share < BOOKKEEPING:
            return None
        return (
            f"other {share:.0%} of the time: it is paid for every batch, large or small; a larger "
            "data.batch_size pays it less often, and callbacks.progress_bar=null saves a part."
        )

    def sentences(self) -> list[str]:
        """What the table does not say."""
        times = self.times
        if times.steps == 0:
            return [
                f"Too few steps for a profile: {times.seen}, and the first {times.warmup} only "
                f"warm up. Let it make {times.warmup + 1} or more (trainer.max_steps)."
            ]
        found = [
            f"Mean of {times.steps} steps (batches) after {times.warmup} to warm up, on "
            f"{times.device}: {1000 * times.total / times.steps:.1f} ms a step, "
            f"{times.samples / times.total:,.0f} samples/s{self._tokens()}."
        ]
        shares = {role: times.padding_share(role) for role in ("student", "teacher")}
        of = [f"{share:.0%} of the {role}'s" for role, share in shares.items() if share is not None]
        if of:
            found.append(f"Padding is {' and '.join(of)} tokens.")
        if times.processes > 1:
            found.append(f"This is the first of {times.processes} processes.")
        if times.device != "cpu":
            found.append(
                f"At every border of two parts the program waited for the {times.device}: the "
                "shares are true, but without a profile a step is shorter."
            )
        if times.between >= 0.05:
            found.append(
                f"Validation and the ends of epochs took {times.between:.1f} s more, between steps."
            )
        return [
            *found,
            *(self.advice() or ["Nothing stands out that a setting would shorten: no advice."]),
        ]

    def _tokens(self) -> str:
        times = self.times
        if "student" not in times.tokens:
            return ""
        real = times.tokens["student"] - times.padding["student"]
        return f", {real / times.total:,.0f} tokens/s of text"

    def cells(self) -> list[list[str]]:
        """A line for each part of a step: its name, what it is, milliseconds and share."""
        times = self.times
        return [
            [phase, what, f"{times.milliseconds(phase):.2f}", f"{times.share(phase):.1%}"]
            for phase, what in PHASES.items()
        ]

    def show(self) -> None:
        """Print the table and what follows from it."""
        console = Console()
        if self.times.steps:
            table = Table(title="Where the time went", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for head in ("", "", "ms a step", "share"):
                table.add_column(head, justify="right" if head else "left", no_wrap=True)
            for cells in self.cells():
                table.add_row(*cells)
            console.print(table)
        for sentence in self.sentences():
            console.print(sentence, highlight=False)

    def save(self, directory: Path) -> None:
        """Write `profile.json`, and `profile.png` if any step was measured."""
        directory.mkdir(parents=True, exist_ok=True)
        shares = {phase: self.times.share(phase) for phase in PHASES}
        found = {**asdict(self), "shares": shares, "advice": self.advice()}
        (directory / "profile.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
        if self.times.steps:
            draw_profile(self.times, directory / "profile.png")

    @classmethod
    def load(cls, directory: Path) -> "Profile | None":
        """What `save` wrote there; `None` if it did not."""
        path = directory / "profile.json"
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        found = {name: found[name] for name in cls.__dataclass_fields__}
        return cls(**{**found, "times": StepTimes(**found["times"])})

    def append_to(self, path: Path) -> None:
        """Add a section with table and picture to a `report.md`."""
        lines = ["", "## Where the time went", ""]
        if self.times.steps:
            lines += ["| part | what | ms a step | share |", "|---|---|---:|---:|"]
            lines += ["| " + " | ".join(cells) + " |" for cells in self.cells()]
            lines += ["", "![where the time went](profile.png)", ""]
        lines += [f"- {sentence}" for sentence in self.sentences()]
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def draw_profile(times: StepTimes, to: Path) -> None:
    """Draw one bar, the mean step, cut into its phases, into a PNG file."""
    figure = Figure(figsize=(8.4, 2.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    left = 0.0
    for i, phase in enumerate(PHASES):
        width, share = times.milliseconds(phase), times.share(phase)
        label = f"{phase} {share:.0%}"
        axes.barh(0, width, left=left, label=label, color=f"C{i}", height=0.6)
        left += width
    axes.set_title("where the time went", fontsize=10)
    axes.set_xlabel("ms of a step", fontsize=8)
    axes.set_xlim(0, left)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    figure.legend(fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    figure.savefig(to, dpi=120)
