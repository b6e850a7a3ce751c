"""What was looked at, what was found, and what to do about it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

FILES = ("check.json", "check.md")


class Level(StrEnum):
    """How bad a finding is: `wrong` makes a training senseless."""

    RIGHT = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        name: of the kind of finding, for programs, as `teacher.chance`.
        about: what was looked at.
        found: what was found.
        level: how bad it is.
        do: what to do, with the words to type.
        brief: the same in few words for the first lines of a run, `Title: words`; empty where
            nobody needs to read it there.
    """

    name: str
    about: str
    found: str
    level: Level = Level.RIGHT
    do: str = ""
    brief: str = ""


@dataclass
class Findings:
    """Everything that `job=check` has found.

    Attributes:
        all: in the order in which it was looked at.
    """

    all: list[Finding] = field(default_factory=list)

    def add(self, found: Iterable[Finding]) -> None:
        """Add some more."""
        self.all += found

    def of(self, level: Level) -> list[Finding]:
        """Those of one level."""
        return [finding for finding in self.all if finding.level is level]

    def sentence(self) -> str:
        """How many there are that ask for something."""
        wrong, warnings = len(self.of(Level.WRONG)), len(self.of(Level.WARNING))
        if not wrong and not warnings:
            return "Nothing was found wrong."
        return f"Wrong: {wrong}. Warnings: {warnings}."

    def show(self, console: Console | None = None) -> None:
        """Print the table, and below it what to do about each finding."""
        console = console or Console()
        table = Table("looked at", "", "found", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for finding in self.all:
            table.add_row(*map(escape, (finding.about, str(finding.level), finding.found)))
        console.print(table)
        for level in (Level.WRONG, Level.WARNING):
            for finding in self.of(level):
                if finding.do:
                    text = f"{level}: {finding.about}: {finding.do}"
                    console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(self.sentence(), markup=False, highlight=False)

    def save(self, directory: Path) -> None:
        """Write `check.json` and `check.md`."""
        plain = [asdict(finding) for finding in self.all]
        for entry in plain:
            del entry["brief"]
        wrong, warnings = len(self.of(Level.WRONG)), len(self.of(Level.WARNING))
        content = {"wrong": wrong, "warnings": warnings, "findings": plain}
        (directory / FILES[0]).write_text(json.dumps(content, indent=2), encoding="utf-8")
        lines = ["# Before the training", "", self.sentence(), ""]
        lines += ["| looked at | | found | what to do |", "|---|---|---|---|"]
        for finding in self.all:
            cells = (finding.about, str(finding.level), finding.found, finding.do)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        (directory / FILES[1]).write_text("\n".join([*lines, ""]), encoding="utf-8")
