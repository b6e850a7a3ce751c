"""What was found, on the terminal and in two files."""

import io
import json

import pytest
from rich.console import Console

from lightning_distill.checks import Finding, Findings, Level

FOUND = [
    Finding("sizes", "sizes", "student 3 | teacher [7]"),
    Finding("rows.repeated", "rows", "half repeat", Level.WARNING, "Look at data.text."),
    Finding("teacher.chance", "teacher", "knows nothing", Level.WRONG, "Train it."),
    Finding("labels.order", "labels", "no names", Level.UNKNOWN),
]


@pytest.fixture
def findings() -> Findings:
    found = Findings()
    found.add(FOUND)
    return found


def test_the_table_says_all_and_below_it_stands_what_to_do(findings):
    console = Console(file=io.StringIO(), width=70)
    findings.show(console)
    said = console.file.getvalue()
    assert all(f.found in said for f in FOUND)
    lines = said.splitlines()
    assert lines[-3:] == [
        "wrong: teacher: Train it.",
        "warning: rows: Look at data.text.",
        "Wrong: 1. Warnings: 1.",
    ]


def test_the_files_hold_the_same(findings, tmp_path):
    findings.save(tmp_path)
    held = json.loads((tmp_path / "check.json").read_text())
    assert (held["wrong"], held["warnings"]) == (1, 1)
    assert [Finding(**{**f, "level": Level(f["level"])}) for f in held["findings"]] == FOUND
    rows = [line for line in (tmp_path / "check.md").read_text().splitlines() if "|" in line]
    assert len(rows) == 2 + len(FOUND)
    assert "| sizes | ok | student 3 \\| teacher [7] |  |" in rows


def test_where_nothing_is_wrong_it_says_so():
    found = Findings([FOUND[0], FOUND[3]])
    assert found.sentence() == "Nothing was found wrong."
