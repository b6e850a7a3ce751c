"""A run is killed at each file operation, and within the write of a file: what is left is whole."""

from functools import partial
from pathlib import Path

from faults.case import Case
from faults.job import JOB
from faults.kills import cut
from faults.moments import at_bytes, at_file_operation

TITLE = "SIGKILL before a file operation, or within a write, resumed, compared"
OPERATIONS, OF_ALL = 40, 400
# Between the smallest file and the largest, in bytes.
SIZES = (0, 100, 700, 3_000, 12_000, 30_000, 60_000, 100_000, 140_000, 170_000, 200_000, 230_000)


def cases() -> list[Case]:
    found = []
    for n in range(1, OF_ALL, OF_ALL // OPERATIONS):
        found.append(Case(f"before file operation {n}", partial(_at_operation, n=n)))
    for size in SIZES:
        quick = size == 60_000
        found.append(
            Case(f"when a file reaches {size} bytes", partial(_at_bytes, size=size), quick)
        )
    return found


def _at_operation(folder: Path, n: int) -> None:
    cut(folder, tuple(JOB), partial(at_file_operation, str(folder), n))


def _at_bytes(folder: Path, size: int) -> None:
    cut(folder, tuple(JOB), partial(at_bytes, size))
