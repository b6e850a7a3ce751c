"""One fault that is tried, and what came of it."""

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Case:
    """A fault to try.

    Attributes:
        name: unique within its kind.
        attempt: called with an empty folder of its own; raises if the fault was not borne.
        quick: whether it is tried with the ordinary tests too.
    """

    name: str
    attempt: Callable[[Path], Any]
    quick: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a case: right, wrong or skipped, and what there is to say."""

    name: str
    verdict: str
    words: str
    seconds: float

    def row(self) -> dict[str, Any]:
        return asdict(self)


def tried(case: Case, folder: Path) -> Outcome:
    """Try one, whatever it raises."""
    begun, verdict, words = time.monotonic(), "right", ""
    try:
        words = str(case.attempt(folder) or "")
    except pytest.skip.Exception as skipped:
        verdict, words = "skipped", str(skipped)
    except AssertionError as error:
        verdict, words = "wrong", _short(str(error) or traceback.format_exc(limit=-1))
    except Exception as error:
        verdict, words = "wrong", _short(f"{type(error).__name__}: {error}")
    return Outcome(case.name, verdict, words, round(time.monotonic() - begun, 1))


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
