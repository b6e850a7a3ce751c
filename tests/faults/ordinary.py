"""What the ordinary tests prove: their cases are run and counted here, and not written again."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

from faults.case import Case

TITLE = "Proved by the ordinary tests"
ROOT = Path(__file__).resolve().parent.parent.parent
# What is proved, and the files that do.
PROVED = {
    "the teacher is never touched": "training/test_module.py teachers/test_teacher.py",
    "random numbers go on where they were": "callbacks/test_exact_resuming.py",
    "each row counts once, on any number of processes": "data/test_length_grouped.py",
    "a loss is its formula": "criteria/test_definitions.py criteria/test_every_criterion.py",
    "a student loads where this package is not installed": "run/test_save.py",
    "a launcher makes one folder for a run": "test_sweep_processes.py",
    "answers of a cache are read whole or not at all": "cache/test_faults.py cache/test_store.py",
    "every command of the README runs": "test_readme.py",
}


def cases() -> list[Case]:
    return [Case(name, partial(_passes, files=files.split())) for name, files in PROVED.items()]


def _passes(folder: Path, files: list[str]) -> str:
    told = folder / "told.xml"
    tests = [str(ROOT / "tests" / name) for name in files]
    given = ["-q", "-p", "no:cacheprovider", f"--junitxml={told}", *tests]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given], cwd=ROOT, env=environment, capture_output=True
    )
    assert told.is_file(), done.stdout.decode()[-300:]
    tried = list(ElementTree.parse(told).iter("testcase"))
    failed = [
        t.get("name", "")
        for t in tried
        for what in ("failure", "error")
        if t.find(what) is not None
    ]
    assert tried and not failed, f"{len(failed)} of {len(tried)} tests: {', '.join(failed[:5])}"
    return f"{len(tried)} tests of {', '.join(files)}"
