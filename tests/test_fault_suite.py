"""A small part of what `python tests/faults/run.py` tries."""

import importlib

import pytest
from faults.case import tried

KINDS = ("kills", "saves", "corruption", "disks", "not_finite", "ranks", "configurations")
KINDS += ("mismatches", "data", "gadgets")
QUICK = [
    pytest.param(case, id=f"{kind}-{case.name}")
    for kind in KINDS
    for case in importlib.import_module(f"faults.{kind}").cases()
    if case.quick
]


@pytest.mark.slow
@pytest.mark.parametrize("case", QUICK)
def test_a_fault_is_borne(case, tmp_path):
    outcome = tried(case, tmp_path)
    if outcome.verdict == "skipped":
        pytest.skip(outcome.words)
    assert outcome.verdict == "right", outcome.words
